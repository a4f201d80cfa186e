package oracle

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// outcome is how a sequence went.
type outcome struct {
	script script
	log    []string // what was done, as an operator would have typed it
	fault  *fault   // nil when os-rescue kept its word
	counts map[recover.Verdict]int
}

func (o outcome) String() string {
	var all strings.Builder
	for n, l := range o.script.Layouts {
		fmt.Fprintf(&all, "    guest %d: %s\n", n+1, l)
	}
	for n, line := range o.log {
		fmt.Fprintf(&all, "    %2d. %s\n", n+1, short(line))
	}
	if o.fault != nil {
		fmt.Fprintf(&all, "    => %s\n", o.fault.Error())
	}
	return all.String()
}

// play runs a sequence of so many steps from a clean host. next returns them one by one,
// and false when there are no more; those that are impossible when their turn comes don't
// count, and are left out of the outcome's script.
//
// An error is the host's or the harness's, and no word about os-rescue.
func (h *host) play(ctx context.Context, layouts []layout, steps int, next func() (step, bool)) (o outcome, err error) {
	o = outcome{script: script{Layouts: layouts}, counts: map[recover.Verdict]int{}}
	if err := h.wipe(); err != nil {
		return o, fmt.Errorf("wipe the host: %w", err)
	}
	w, err := h.build(layouts)
	if err != nil {
		return o, fmt.Errorf("build the world: %w", err)
	}
	defer func() {
		if w.guard != nil {
			_, _ = endGuard(w, 9)
		}
	}()
	fail := func(err error) (outcome, error) {
		o.log = append(o.log, w.notes...)
		if errors.As(err, &o.fault) {
			return o, nil
		}
		return o, err
	}
	if err := w.observe(ctx); err != nil {
		return fail(err)
	}
	for draws := 0; len(o.script.Steps) < steps && draws < 30*steps; draws++ {
		s, more := next()
		if !more {
			break
		}
		text, err := w.step(ctx, s)
		if errors.Is(err, errImpossible) {
			continue
		}
		o.script.Steps = append(o.script.Steps, s)
		o.log = append(o.log, text)
		o.log, w.notes = append(o.log, w.notes...), nil
		if err != nil {
			return fail(err)
		}
		for _, g := range w.guests {
			o.counts[w.verdicts[g].Verdict]++
		}
		if f := w.judge(); f != nil {
			return fail(f)
		}
	}
	for _, g := range w.guests {
		if err := (proof{w, g}).verdict(ctx); err != nil {
			return fail(err)
		}
	}
	o.log = append(o.log, w.notes...)
	return o, nil
}

// step does one step, and holds it against the laws that need no verdict: nothing that
// os-rescue does, and nothing that happens while the guard holds everything, loses a byte.
func (w *world) step(ctx context.Context, s step) (string, error) {
	k, ok := kindNamed(s.Kind)
	if !ok {
		return "", fmt.Errorf("no kind of step is called %q", s.Kind)
	}
	before, pids := w.truths, w.pids()
	guarded := w.guard != nil
	w.last = nil
	text, err := k.do(ctx, w, w.guests[s.Guest%len(w.guests)], pick(s.Pick))
	if errors.Is(err, errImpossible) {
		return "", err
	}
	if err != nil {
		text += " (" + strings.ReplaceAll(err.Error(), "\n", " ") + ")"
	}
	if err := w.refresh(); err != nil {
		return text, err
	}
	settle(w)
	if err := w.observe(ctx); err != nil {
		return text, err
	}
	after := w.truths
	if w.last != nil {
		if f := w.judgeRun(before, after, pids); f != nil {
			return text, f
		}
	}
	for _, g := range w.guests {
		was, is := before[g], after[g]
		lost := fmt.Sprintf("%s: before: %s\n      now: %s", g.name, was, is)
		switch {
		case guarded && w.guard != nil && ended(w.guard):
			return text, &fault{"the guard has ended by itself", text}
		case k.rescues && was.linked && !is.linked:
			return text, &fault{"os-rescue let go what was held (" + k.name + ")", short(lost)}
		case guarded && w.guard != nil && was.held && !is.linked:
			return text, &fault{"the guard did not hold what was lost (" + k.name + ")", short(lost)}
		}
		if g.pid == 0 {
			continue
		}
		misread, err := misread(ctx, g)
		switch {
		case err != nil:
			return text, err
		case misread == "":
		case k.rescues:
			return text, &fault{"a guest reads something else after " + k.name, g.name + ": " + misread}
		default: // what an operator or libvirt has done to it is not os-rescue's
			if err := adopt(ctx, w, g); err != nil {
				return text, err
			}
		}
	}
	return text, nil
}
