package recover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatTheGuestWritesWhileItsDiskIsCopiedIsInTheCopy(t *testing.T) {
	for _, point := range []string{"ahead.begin", "ahead.done", "freeze.done", "suspend.begin"} {
		t.Run(point, func(t *testing.T) {
			h := newHost(t)
			g := h.add(1, guestOptions{base: "b", agent: true})
			disk := g.opened(t)
			h.purge()
			e := h.engine()
			e.Failpoint = func(at string) {
				if at == point {
					g.writes(t, disk, 5, "written")
					g.writes(t, disk, 70<<10, "into a hole")
					g.writes(t, disk, 200<<10, "behind the end")
				}
			}
			s, err := e.Prepare(t.Context(), CommandRescue, options(g))
			must(t, err)
			defer s.Close()
			report, err := s.Execute(t.Context())
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			must(t, g.serving(StateRunning))
		})
	}
}

// The guest goes on after the crash, so that what was copied ahead is old.
func TestWhatWasCopiedAheadOfACrashIsNeverTakenForProven(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]bool{"the guest runs on": false, "the guest ends": true} {
		first := newHost(t)
		for k := crashPoint(t, first, CommandRescue, func(g *testGuest) Options { return options(g) }, guestOptions{}, "ahead.begin", ""); ; k++ {
			h := first.elsewhere(t)
			g := h.add(k, guestOptions{})
			disk := g.opened(t)
			h.purge()
			run, point := h.crashAt(CommandRescue, options(g), k)
			where := fmt.Sprintf("%s, %d %s", name, k, point)
			if run == "" || point == "suspend.done" {
				h.hv.endAll()
				break
			}
			g.writes(t, disk, 7, "after the crash")
			want := StateRunning
			if off {
				h.hv.change(g.uuid, (*fakeDomain).off)
				want = StateShutOff
			}
			report, err := h.resume(t.Context(), run)
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeRescued {
				t.Errorf("%s: %+v", where, r)
			}
			if err := g.serving(want); err != nil {
				t.Errorf("%s: %v", where, err)
			}
			if left := h.staged(); len(left) > 0 {
				t.Errorf("%s: left behind: %v", where, left)
			}
			h.hv.endAll()
		}
	}
}

func TestAResumeGoesOnWithWhatWasCopiedAhead(t *testing.T) {
	h := newHost(t)
	k := crashPoint(t, h, CommandRescue, func(g *testGuest) Options { return options(g) }, guestOptions{}, "ahead.done", "")
	h = h.elsewhere(t)
	g := h.add(1, guestOptions{})
	h.purge()
	run, _ := h.crashAt(CommandRescue, options(g), k)
	h.hv.change(g.uuid, (*fakeDomain).off)
	_, err := h.resume(t.Context(), run)
	must(t, err)
	must(t, g.serving(StateShutOff))
	for _, r := range h.records(run) {
		if r.Point() == "copy.done" && r.Path == g.disk && !strings.Contains(string(r.Data), `"method":"ahead"`) {
			t.Errorf("it was copied anew: %s", r.Data)
		}
	}
}

// After a power cut what was copied while the guest ran is all that is left of it.
func TestAPowerCutLeavesWhatWasCopiedAheadAndSaysWhere(t *testing.T) {
	h := newHost(t)
	k := crashPoint(t, h, CommandRescue, func(g *testGuest) Options { return options(g) }, guestOptions{}, "suspend.begin", "")
	h = h.elsewhere(t)
	g := h.add(1, guestOptions{})
	h.purge()
	run, _ := h.crashAt(CommandRescue, options(g), k)
	h.hv.change(g.uuid, (*fakeDomain).off)
	h.killKeeper()
	report, err := h.resume(t.Context(), run)
	must(t, err)
	r := g.report(report)
	var left string
	for _, path := range h.staged() {
		if strings.HasPrefix(filepath.Base(path), g.uuid) {
			left = path
		}
	}
	if r.Outcome != OutcomeFailed || left == "" || !strings.Contains(r.Error, left) {
		t.Errorf("left: %q, and it says %+v", left, r)
	}
}

func TestAGuestThatDoesNotRunIsNotCopiedAhead(t *testing.T) {
	for _, state := range []DomainState{StatePaused} {
		h := newHost(t)
		g := h.add(1, guestOptions{state: state})
		h.purge()
		report, err := h.run(t.Context(), CommandRescue, options(g))
		must(t, err)
		for _, p := range points(h.records(report.Run)) {
			if strings.HasPrefix(p, stepAhead) {
				t.Errorf("%s: %s", state, p)
			}
		}
	}
}

func TestWhatGoesWrongWhileADiskIsCopiedAheadLeavesTheGuestAlone(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, h *host, cancel func()){
		"it is interrupted": func(_ *testing.T, _ *host, cancel func()) { cancel() },
		"the file system fills up": func(t *testing.T, h *host, _ func()) {
			err := os.WriteFile(filepath.Join(h.settings.InstancesPath, "other"), make([]byte, 4<<20), 0o600)
			if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("there is room left: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := smallHost(t, "2m")
			g := h.add(1, guestOptions{agent: true})
			disk := g.opened(t)
			pid := h.hv.get(g.uuid).PID
			h.purge()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			e := h.engine()
			e.Failpoint = func(point string) {
				if point == "ahead.done" {
					g.writes(t, disk, 300<<10, strings.Repeat("grown", 9999))
					spoil(t, h, cancel)
				}
			}
			s, err := e.Prepare(ctx, CommandRescue, options(g))
			must(t, err)
			defer s.Close()
			report, err := s.Execute(ctx)
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if r := g.report(report); r.Outcome == OutcomeRescued {
				t.Errorf("%+v", r)
			}
			must(t, g.asFound(StateRunning, pid))
			if n := h.hv.called("suspend", g.uuid); n > 0 {
				t.Error("the guest was suspended")
			}
			if left := h.staged(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
