package oracle

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// step is one thing that happens. It is a number, not a plan: what it does exactly, it
// chooses among what is there when its turn comes.
type step struct {
	Kind  string
	Guest int // which guest, counted round
	Pick  int // which of the possibilities, counted round
}

func (s step) String() string { return fmt.Sprintf("%s/%d/%d", s.Kind, s.Guest, s.Pick) }

// errImpossible is returned by a step for which there is nothing to do now.
var errImpossible = errors.New("impossible now")

// pick chooses among several things, one after the other, by one number.
type pick int

// of returns a number below n.
func (p *pick) of(n int) int {
	chosen := int(*p) % n
	*p /= pick(n)
	return chosen
}

// kind is a kind of step.
type kind struct {
	name   string
	weight int // how often it comes, against the others
	// do does it, and says what it did in words that an operator could have typed. An
	// error other than errImpossible is the operator's: it is noted, and the sequence
	// goes on.
	do func(ctx context.Context, w *world, g *guest, p pick) (string, error)
	// rescues is true for what os-rescue does: such a step must never lose a byte.
	rescues bool
}

// kinds returns every kind of step.
func kinds() []kind {
	return []kind{
		{name: "write", weight: 5, do: doWrite},
		{name: "move-file", weight: 3, do: doMoveFile},
		{name: "move-dir", weight: 2, do: doMoveDir},
		{name: "move-tree", weight: 2, do: doMoveTree},
		{name: "move-back", weight: 2, do: doMoveBack},
		{name: "remove-file", weight: 4, do: doRemoveFile},
		{name: "remove-dir", weight: 3, do: doRemoveDir},
		{name: "remove-tree", weight: 2, do: doRemoveTree},
		{name: "remove-base", weight: 2, do: doRemoveBase},
		{name: "remove-aside", weight: 2, do: doRemoveAside},
		{name: "backup", weight: 2, do: doBackup},
		{name: "recreate", weight: 3, do: doRecreate},
		{name: "reuse", weight: 2, do: doReuse},
		{name: "copy-back", weight: 3, do: doCopyBack},
		{name: "hard-link", weight: 2, do: doHardLink},
		{name: "link-back", weight: 1, do: doLinkBack},
		{name: "mount-over", weight: 2, do: doMountOver},
		{name: "unmount", weight: 2, do: doUnmount},
		{name: "snapshot", weight: 2, do: doSnapshot},
		{name: "redefine", weight: 2, do: doRedefine},
		{name: "attach", weight: 2, do: doAttach},
		{name: "detach", weight: 1, do: doDetach},
		{name: "pause", weight: 1, do: doPause},
		{name: "stop", weight: 2, do: doStop},
		{name: "start", weight: 3, do: doStart},
		{name: "rescue", weight: 4, do: doRescue, rescues: true},
		{name: "rescue-all", weight: 2, do: doRescueAll, rescues: true},
		{name: "resume-run", weight: 1, do: doResumeRun, rescues: true},
		{name: "guard-start", weight: 2, do: doGuardStart, rescues: true},
		{name: "guard-stop", weight: 1, do: doGuardStop, rescues: true},
		{name: "guard-kill", weight: 1, do: doGuardKill},
	}
}

// kindNamed returns a kind by its name.
func kindNamed(name string) (kind, bool) {
	all := kinds()
	n := slices.IndexFunc(all, func(k kind) bool { return k.name == name })
	if n < 0 {
		return kind{}, false
	}
	return all[n], true
}

// script is what a sequence needs to be played again.
type script struct {
	Layouts []layout
	Steps   []step
}

// String is what parseScript reads.
func (s script) String() string {
	words := make([]string, 0, len(s.Layouts)+1+len(s.Steps))
	for _, l := range s.Layouts {
		words = append(words, l.String())
	}
	words = append(words, ":")
	for _, step := range s.Steps {
		words = append(words, step.String())
	}
	return strings.Join(words, " ")
}

// parseScript reads a script: "qcow2+eph0 raw : write/0/17 remove-dir/1/0".
func parseScript(text string) (script, error) {
	var s script
	guests, steps, ok := strings.Cut(text, ":")
	if !ok || strings.TrimSpace(guests) == "" {
		return s, fmt.Errorf("%q: it must be guests, a colon, steps", text)
	}
	for _, word := range strings.Fields(guests) {
		parts := strings.Split(word, "+")
		s.Layouts = append(s.Layouts, layout{
			Top: parts[0], Eph: slices.Contains(parts, "eph0"), Config: slices.Contains(parts, "config"),
		})
	}
	for _, word := range strings.Fields(steps) {
		parts := strings.Split(word, "/")
		if len(parts) != 3 {
			return s, fmt.Errorf("%q: a step is KIND/GUEST/PICK", word)
		}
		guest, err := strconv.Atoi(parts[1])
		number, err2 := strconv.Atoi(parts[2])
		if _, known := kindNamed(parts[0]); !known || errors.Join(err, err2) != nil || guest < 0 || number < 0 {
			return s, fmt.Errorf("%q: a step is KIND/GUEST/PICK", word)
		}
		s.Steps = append(s.Steps, step{Kind: parts[0], Guest: guest, Pick: number})
	}
	return s, nil
}

// chance draws the world and the steps of a sequence.
type chance struct {
	random  *rand.Rand
	allowed func(kind string) bool
}

func newChance(seed uint64, allowed func(kind string) bool) *chance {
	return &chance{random: rand.New(rand.NewPCG(seed, 0)), allowed: allowed}
}

// layouts draws one to three guests.
func (c *chance) layouts() []layout {
	list := make([]layout, []int{1, 1, 2, 3}[c.random.IntN(4)])
	for n := range list {
		list[n] = layout{Top: "qcow2", Eph: c.random.IntN(3) == 0, Config: c.random.IntN(3) == 0}
		if c.random.IntN(4) == 0 {
			list[n].Top = "raw"
		}
	}
	return list
}

// step draws one step.
func (c *chance) step(guests int) step {
	total := 0
	var all []kind
	for _, k := range kinds() {
		if c.allowed(k.name) {
			all = append(all, k)
			total += k.weight
		}
	}
	n := c.random.IntN(total)
	for _, k := range all {
		if n -= k.weight; n < 0 {
			return step{Kind: k.name, Guest: c.random.IntN(guests), Pick: c.random.IntN(1 << 20)}
		}
	}
	panic("unreachable: the weights are positive")
}
