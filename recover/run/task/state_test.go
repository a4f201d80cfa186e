package task

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// TestAGuestsWorkGoesOnlyWhereItMay tries every event in every state.
func TestAGuestsWorkGoesOnlyWhereItMay(t *testing.T) {
	states := []State{stateAsFound, stateSuspended, stateEnded, statePoweredOff, stateCommitted,
		stateOff, StateStaysOff, StateStoppedByNova, StateOldKept}
	const no = State("")        // it can't happen
	after := map[Event][]State{ // in the order of states
		EventSuspend:  {stateSuspended, no, no, no, no, no, no, no, no},
		EventGoOn:     {no, stateAsFound, no, no, stateCommitted, no, no, no, no},
		EventEnded:    {stateEnded, stateEnded, stateEnded, no, no, no, no, no, no},
		EventPowerOff: {statePoweredOff, statePoweredOff, statePoweredOff, no, no, no, no, no, no},
		EventCommit:   {stateCommitted, stateCommitted, stateOff, StateStaysOff, stateCommitted, stateOff, StateStaysOff, no, no},
		EventDestroy:  {no, no, no, no, stateOff, no, no, no, no},
		EventRevert:   {no, no, no, no, stateAsFound, no, no, no, no},
		EventNovaStop: {no, no, no, no, no, StateStoppedByNova, no, no, no},
		EventKeepOld:  {StateOldKept, no, no, no, StateOldKept, no, no, no, no},
	}
	for event, wanted := range after {
		for n, from := range states {
			got, err := from.after(event)
			switch want := wanted[n]; {
			case want == no && (!errors.Is(err, errTransition) || got != from):
				t.Errorf("%q while %q: %q, %v; it can't happen", event, from, got, err)
			case want != no && (err != nil || got != want):
				t.Errorf("%q while %q: %q, %v; want %q", event, from, got, err, want)
			}
		}
	}
}

func TestWhatAStateMeans(t *testing.T) {
	for state, want := range map[State]struct{ ended, committed bool }{
		stateAsFound:       {false, false},
		stateSuspended:     {false, false},
		stateEnded:         {true, false},
		statePoweredOff:    {true, false},
		stateCommitted:     {false, true},
		stateOff:           {true, true},
		StateStaysOff:      {true, true},
		StateStoppedByNova: {false, true},
		StateOldKept:       {false, true},
	} {
		if state.HasEnded() != want.ended || state.IsCommitted() != want.committed {
			t.Errorf("%q: ended %v, committed %v", state, state.HasEnded(), state.IsCommitted())
		}
	}
}

// TestAnImpossibleEventStopsOnlyWhatCanBeUndone: from the end of the domain or the
// commit on it is logged, and the work goes on. It never changes the state.
func TestAnImpossibleEventStopsOnlyWhatCanBeUndone(t *testing.T) {
	for state := range transitions() {
		for _, event := range []Event{
			EventSuspend, EventGoOn, EventEnded, EventPowerOff, EventCommit, EventDestroy, EventRevert, EventNovaStop, EventKeepOld,
		} {
			if _, ok := transitions()[state][event]; ok {
				continue
			}
			w := New(&Run{}, recover.InstancePlan{})
			w.current = state
			log := &strings.Builder{}
			err := w.Enter(zerolog.New(log).WithContext(t.Context()), event)
			logged := strings.Contains(log.String(), errTransition.Error())
			switch stops := state == stateAsFound || state == stateSuspended; {
			case w.State() != state:
				t.Errorf("%q while %q: the guest is %q", event, state, w.State())
			case stops && !errors.Is(err, errTransition):
				t.Errorf("%q while %q: the work goes on: %v", event, state, err)
			case !stops && (err != nil || !logged):
				t.Errorf("%q while %q: %v, logged: %q", event, state, err, log)
			}
		}
	}
}

// TestThePackagesCommentHasTheLegalTransitions reads the table in doc.go: after the
// state, columns of events and the state that follows them.
func TestThePackagesCommentHasTheLegalTransitions(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	recovertest.Must(t, err)
	columns := regexp.MustCompile(` {2,}`)
	said := map[State]map[Event]State{}
	var state State
	for line := range strings.Lines(string(doc)) {
		row, ok := strings.CutPrefix(line, "//\t")
		if !ok {
			continue
		}
		cells := columns.Split(strings.TrimSuffix(row, "\n"), -1)
		if cells[0] != "" {
			state = State(cells[0])
			said[state] = map[Event]State{}
		}
		for _, cell := range cells[1:] {
			events, next, _ := strings.Cut(cell, ": ")
			for event := range strings.SplitSeq(events, ", ") {
				said[state][Event(event)] = State(next)
			}
		}
	}
	for _, end := range []State{StateStoppedByNova, StateOldKept} {
		delete(said[end], "nothing")
	}
	if diff := cmp.Diff(transitions(), said); diff != "" {
		t.Error(diff)
	}
}

// TestWhatCanBeUndoneCanBeCommitted: no state of a living guest keeps it from that.
func TestWhatCanBeUndoneCanBeCommitted(t *testing.T) {
	for state := range transitions() {
		if _, err := state.after(EventCommit); state.canBeUndone() && err != nil {
			t.Error(err)
		}
	}
}
