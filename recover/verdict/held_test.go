package verdict

import (
	"slices"
	"testing"
)

// everyHeld calls do with every combination of facts about a deleted file that is held.
func everyHeld(do func(HeldFacts)) {
	both := []bool{false, true}
	for bits := range 1 << 9 {
		is := func(n int) bool { return both[bits>>n&1] }
		for _, owner := range []Owner{Unclaimed, Unsure, Doubtful, Missing, Running, Off, Gone} {
			for _, word := range []Word{Silent, Unasked, Here, Deleted, OnOthers} {
				do(HeldFacts{Written: is(0), Settled: is(1), Proven: is(2), Replaced: is(3), Wanted: is(4), Orderly: is(5),
					Elsewhere: is(6), GraceOver: is(7), Open: is(8), Owner: owner, Nova: word})
			}
		}
	}
}

func TestNoFileIsLetGoThatMayBeNeeded(t *testing.T) {
	everyHeld(func(f HeldFacts) {
		got := Held(f)
		lost := f.Owner == Missing || f.Owner == Gone && f.Nova == Here
		switch {
		case f.Written && got != Needed:
			t.Errorf("%+v is %s, and its QEMU writes it", f, got)
		case !f.Settled && !got.IsHeld():
			t.Errorf("%+v is %s, just deleted", f, got)
		case lost && !f.Proven && !got.IsHeld():
			t.Errorf("%+v is %s, and an instance that exists has lost it", f, got)
		case (f.Owner == Unsure || f.Owner == Doubtful && !f.Proven) && !got.IsHeld():
			t.Errorf("%+v is %s, and nobody knows", f, got)
		case f.Owner == Gone && f.Nova == Silent && !f.Proven && !got.IsHeld():
			t.Errorf("%+v is %s, without a word of Nova's", f, got)
		case f.Owner == Running && f.Open && !f.Proven && !got.IsHeld():
			t.Errorf("%+v is %s, and its QEMU has it open", f, got)
		case got == Spare && (f.Owner != Gone || !f.Orderly || f.Wanted || f.Nova != Unasked):
			t.Errorf("%+v may go when room is short", f)
		case got == Restored && !f.Proven:
			t.Errorf("%+v is said to be back", f)
		}
	})
}

func TestWhatTheFactsAboutAHeldFileMean(t *testing.T) {
	for name, c := range map[string]struct {
		facts HeldFacts
		want  HeldResult
	}{
		"of a running guest that has others":      {HeldFacts{Owner: Running}, Unneeded},
		"the same, wanted in an incident":         {HeldFacts{Owner: Running, Wanted: true}, Needed},
		"an old log in an incident":               {HeldFacts{Owner: Running, Wanted: true, Replaced: true}, Unneeded},
		"off, Nova has it here":                   {HeldFacts{Owner: Off, Nova: Here}, Unneeded},
		"off, without Nova":                       {HeldFacts{Owner: Off, Nova: Unasked}, Undecided},
		"off, without Nova, after the grace":      {HeldFacts{Owner: Off, Nova: Unasked, GraceOver: true}, Forgotten},
		"gone, deleted":                           {HeldFacts{Owner: Gone, Nova: Deleted, Wanted: true}, Disowned},
		"gone, moved":                             {HeldFacts{Owner: Gone, Nova: OnOthers}, Moved},
		"gone, without Nova":                      {HeldFacts{Owner: Gone, Nova: Unasked}, Undecided},
		"gone in order, without Nova":             {HeldFacts{Owner: Gone, Nova: Unasked, Orderly: true}, Disowned},
		"gone in order, an incident beside":       {HeldFacts{Owner: Gone, Nova: Unasked, Orderly: true, Elsewhere: true}, Spare},
		"gone in an incident, without Nova":       {HeldFacts{Owner: Gone, Nova: Unasked, Wanted: true, GraceOver: true}, Needed},
		"gone in order, Nova silent":              {HeldFacts{Owner: Gone, Nova: Silent, Orderly: true, GraceOver: true}, Undecided},
		"of nobody":                               {HeldFacts{Owner: Unclaimed}, Unneeded},
		"of nobody, while others miss files":      {HeldFacts{Owner: Unclaimed, Elsewhere: true}, Undecided},
		"read by its QEMU, which has other files": {HeldFacts{Owner: Running, Open: true}, Undecided},
		"put back, and read by its QEMU":          {HeldFacts{Owner: Running, Open: true, Proven: true}, Restored},
		"put back, of an instance in doubt":       {HeldFacts{Owner: Doubtful, Proven: true}, Restored},
		"put back, while a run works with it":     {HeldFacts{Owner: Unsure, Proven: true}, Undecided},
	} {
		c.facts.Settled = true
		if got := Held(c.facts); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		c.facts.Settled = false
		if got := Held(c.facts); !slices.Contains([]HeldResult{Needed, Undecided}, got) {
			t.Errorf("%s, just deleted: %s", name, got)
		}
	}
}
