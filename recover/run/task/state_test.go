package task

import (
	"errors"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

// TestAGuestsWorkGoesOnlyWhereItMay tries every event in every state.
func TestAGuestsWorkGoesOnlyWhereItMay(t *testing.T) {
	states := []State{stateAsFound, stateSuspended, stateEnded, statePoweredOff, stateCommitted,
		stateOff, StateStaysOff, StateStoppedByNova, StateOldKept}
	const no = State("")                         // it can't happen
	for event, after := range map[Event][]State{ // in the order of states
		EventSuspend:  {stateSuspended, no, no, no, no, no, no, no, no},
		EventGoOn:     {no, stateAsFound, no, no, stateCommitted, no, no, no, no},
		EventEnded:    {stateEnded, stateEnded, stateEnded, no, no, no, no, no, no},
		EventPowerOff: {statePoweredOff, statePoweredOff, statePoweredOff, no, no, no, no, no, no},
		EventCommit:   {stateCommitted, stateCommitted, stateOff, StateStaysOff, stateCommitted, stateOff, StateStaysOff, no, no},
		EventDestroy:  {no, no, no, no, stateOff, no, no, no, no},
		EventRevert:   {no, no, no, no, stateAsFound, no, no, no, no},
		EventNovaStop: {no, no, no, no, no, StateStoppedByNova, no, no, no},
		EventKeepOld:  {StateOldKept, no, no, no, StateOldKept, no, no, no, no},
	} {
		for n, from := range states {
			got, err := from.after(event)
			switch want := after[n]; {
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

// TestAnImpossibleEventChangesNothing: the task says so, and stays where it is.
func TestAnImpossibleEventChangesNothing(t *testing.T) {
	w := New(&Run{}, recover.InstancePlan{})
	for _, e := range []Event{EventSuspend, EventCommit} {
		if err := w.Enter(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Enter(EventSuspend); !errors.Is(err, errTransition) || w.State() != stateCommitted {
		t.Errorf("%v, %q", err, w.State())
	}
}
