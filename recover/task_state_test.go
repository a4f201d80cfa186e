package recover

import (
	"errors"
	"testing"
)

// TestAGuestsWorkGoesOnlyWhereItMay tries every event in every state.
func TestAGuestsWorkGoesOnlyWhereItMay(t *testing.T) {
	states := []workState{stateAsFound, stateSuspended, stateEnded, statePoweredOff, stateCommitted,
		stateOff, stateStaysOff, stateStoppedByNova, stateOldKept}
	const no = workState("")                             // it can't happen
	for event, after := range map[workEvent][]workState{ // in the order of states
		eventSuspend:  {stateSuspended, no, no, no, no, no, no, no, no},
		eventGoOn:     {no, stateAsFound, no, no, stateCommitted, no, no, no, no},
		eventEnded:    {stateEnded, stateEnded, stateEnded, no, no, no, no, no, no},
		eventPowerOff: {statePoweredOff, statePoweredOff, statePoweredOff, no, no, no, no, no, no},
		eventCommit:   {stateCommitted, stateCommitted, stateOff, stateStaysOff, stateCommitted, stateOff, stateStaysOff, no, no},
		eventDestroy:  {no, no, no, no, stateOff, no, no, no, no},
		eventRevert:   {no, no, no, no, stateAsFound, no, no, no, no},
		eventNovaStop: {no, no, no, no, no, stateStoppedByNova, no, no, no},
		eventKeepOld:  {stateOldKept, no, no, no, stateOldKept, no, no, no, no},
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
	for state, want := range map[workState]struct{ ended, committed bool }{
		stateAsFound:       {false, false},
		stateSuspended:     {false, false},
		stateEnded:         {true, false},
		statePoweredOff:    {true, false},
		stateCommitted:     {false, true},
		stateOff:           {true, true},
		stateStaysOff:      {true, true},
		stateStoppedByNova: {false, true},
		stateOldKept:       {false, true},
	} {
		if state.hasEnded() != want.ended || state.isCommitted() != want.committed {
			t.Errorf("%q: ended %v, committed %v", state, state.hasEnded(), state.isCommitted())
		}
	}
}

// TestAnImpossibleEventChangesNothing: the task says so, and stays where it is.
func TestAnImpossibleEventChangesNothing(t *testing.T) {
	w := newTask(&run{}, InstancePlan{})
	for _, e := range []workEvent{eventSuspend, eventCommit} {
		if err := w.enter(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.enter(eventSuspend); !errors.Is(err, errTransition) || w.state() != stateCommitted {
		t.Errorf("%v, %q", err, w.state())
	}
}
