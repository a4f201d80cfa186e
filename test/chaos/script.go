package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// script is a trial.
type script struct {
	Mode    string // reboot or live
	Guard   bool   // a guard runs from before the deletion
	Layouts []string
	Strikes []strike
}

// strike is what happens at one point of a journal, all at once.
type strike struct {
	Resume bool   // of the first resume and not of the run
	Point  string // copy.done
	Nth    int    // its first time, its second
	Faults []string
	Pick   int // chooses among the possibilities of a fault, counted round
}

func (s strike) String() string {
	during := "run"
	if s.Resume {
		during = "resume"
	}
	return fmt.Sprintf("%s@%s#%d=%s/%d", during, s.Point, s.Nth, strings.Join(s.Faults, "+"), s.Pick)
}

// String is what parseScript reads.
func (s script) String() string {
	words := []string{s.Mode}
	if s.Guard {
		words = append(words, "guard")
	}
	words = append(append(append(words, ":"), s.Layouts...), ":")
	for _, s := range s.Strikes {
		words = append(words, s.String())
	}
	return strings.Join(words, " ")
}

// parseScript reads "reboot guard : qcow2 raw : run@copy.done#1=kill-run+kill-keeper/0".
func parseScript(text string) (script, error) {
	var s script
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return s, fmt.Errorf("%q: it must be MODE [guard] : LAYOUTS : STRIKES", text)
	}
	way := strings.Fields(parts[0])
	if len(way) == 0 || !slices.Contains([]string{"reboot", "live"}, way[0]) {
		return s, fmt.Errorf("%q: the mode must be reboot or live", text)
	}
	s.Mode, s.Guard, s.Layouts = way[0], slices.Contains(way, "guard"), strings.Fields(parts[1])
	for _, word := range strings.Fields(parts[2]) {
		struck, err := parseStrike(word)
		if err != nil {
			return s, err
		}
		s.Strikes = append(s.Strikes, struck)
	}
	return s, nil
}

func parseStrike(word string) (strike, error) {
	bad := fmt.Errorf("%q: a strike is run@POINT#NTH=FAULT+FAULT/PICK, or with resume@", word)
	during, rest, ok := strings.Cut(word, "@")
	point, what, ok2 := strings.Cut(rest, "=")
	name, nth, ok3 := strings.Cut(point, "#")
	faults, pick, ok4 := strings.Cut(what, "/")
	n, err := strconv.Atoi(nth)
	p, err2 := strconv.Atoi(pick)
	if !ok || !ok2 || !ok3 || !ok4 || err != nil || err2 != nil || during != "run" && during != "resume" {
		return strike{}, bad
	}
	s := strike{Resume: during == "resume", Point: name, Nth: n, Faults: strings.Split(faults, "+"), Pick: p}
	for _, f := range s.Faults {
		if _, known := faultNamed(f); !known {
			return s, bad
		}
	}
	return s, nil
}

// draw draws the trial of a seed.
func draw(seed uint64) script {
	random := rand.New(rand.NewPCG(seed, 13))
	s := script{Mode: []string{"reboot", "live"}[random.IntN(2)], Guard: random.IntN(3) == 0}
	layouts := []string{"qcow2", "qcow2", "qcow2+eph0", "raw"}
	for range 1 + random.IntN(5)/4 {
		s.Layouts = append(s.Layouts, layouts[random.IntN(len(layouts))])
	}
	all := points(s.Mode)
	strikeAt := func(resume bool) strike {
		n := strike{Resume: resume, Point: all[random.IntN(len(all))], Nth: 1, Pick: random.IntN(1 << 16)}
		if random.IntN(4) == 0 && slices.Contains(perFile(), strings.Split(n.Point, ".")[0]) {
			n.Nth = 2
		}
		n.Faults = []string{drawFault(random)}
		if other := drawFault(random); random.IntN(3) == 0 && other != n.Faults[0] {
			n.Faults = append(n.Faults, other)
		}
		return n
	}
	s.Strikes = []strike{strikeAt(false)}
	switch random.IntN(4) {
	case 0:
		s.Strikes = append(s.Strikes, strikeAt(false))
	case 1: // there is a resume only of a run that was interrupted
		s.Strikes[0].Faults[0] = "kill-run"
		s.Strikes = append(s.Strikes, strikeAt(true))
	}
	return s
}

func drawFault(random *rand.Rand) string {
	total := 0
	for _, f := range faults() {
		total += f.weight
	}
	n := random.IntN(total)
	for _, f := range faults() {
		if n -= f.weight; n < 0 {
			return f.name
		}
	}
	panic("unreachable: the weights are positive")
}

// perFile are the steps that come for each file.
func perFile() []string { return []string{"copy", "compare", "publish", "own", "ahead"} }

// points are the points of a journal at which faults are injected.
func points(mode string) []string {
	steps := []string{"pin", "plan", "instance", "copy", "compare", "check", "publish", "own", "suspend", "unpin", "run"}
	switch mode {
	case "reboot":
		steps = append(steps, "ahead", "destroy", "start", "confirm")
	case "live":
		steps = append(steps, "mirror", "ready", "place", "pivot", "export", "end-export", "continue")
	}
	var all []string
	for _, s := range steps {
		all = append(all, s+".begin", s+".done")
	}
	return all
}
