package task

import (
	"errors"
	"fmt"
)

// State is where the work on a guest stands: what the run has done to its domain, and
// whether that can still be undone. The package's comment has the legal transitions.
type State string

// The states.
const (
	// stateAsFound: nothing was done to its domain, or all of that is undone.
	stateAsFound State = "as found"
	// stateSuspended: the run has suspended it.
	stateSuspended State = "suspended"
	// stateEnded: it has no QEMU, and did not have one before the run touched it, or
	// an interrupted run has destroyed it.
	stateEnded State = "ended"
	// statePoweredOff: it has ended by itself in the middle of a rescue.
	statePoweredOff State = "powered off"
	// stateCommitted: the only way is forward. Its QEMU is being ended, or runs on
	// new disks already, or Nova was asked to reboot it.
	stateCommitted State = "committed"
	// stateOff: committed, and its QEMU is gone.
	stateOff State = "off"
	// StateStaysOff: committed, and because it powered itself off it is not started.
	StateStaysOff State = "stays off"
	// StateStoppedByNova: it was started, and Nova ends whatever libvirt starts of it.
	StateStoppedByNova State = "stopped by Nova"
	// StateOldKept: it runs on new disks that differ from the old ones, and those
	// are on disk too.
	StateOldKept State = "old disk kept"
)

// Event is what happens to a guest in a run.
type Event string

// The events.
const (
	EventSuspend  Event = "suspend"    // the run suspends it
	EventGoOn     Event = "go on"      // the suspend is undone
	EventEnded    Event = "ended"      // it is seen to have no QEMU
	EventPowerOff Event = "power off"  // the same, and it did that itself
	EventCommit   Event = "commit"     // what follows can't be undone
	EventDestroy  Event = "destroyed"  // its QEMU is gone by the run's hand
	EventRevert   Event = "revert"     // the commit came to nothing: it goes on as it was found
	EventCrash    Event = "crash"      // its QEMU is gone by a fault, after the commit
	EventNovaStop Event = "Nova stops" // Nova has ended it again after its start
	EventKeepOld  Event = "keep old"   // its old disks, which differ, are kept
)

// errTransition: something happened to a guest that can't happen in its state.
// That is a fault of os-rescue.
var errTransition = errors.New("impossible transition")

// after returns the state that follows s when e happens; errTransition when e
// can't happen in s.
func (s State) after(e Event) (State, error) {
	if next, ok := transitions()[s][e]; ok {
		return next, nil
	}
	return s, fmt.Errorf("%w: %q while the guest is %q", errTransition, e, s)
}

func transitions() map[State]map[Event]State {
	return map[State]map[Event]State{
		stateAsFound: {EventSuspend: stateSuspended, EventEnded: stateEnded, EventPowerOff: statePoweredOff, EventCommit: stateCommitted,
			EventKeepOld: StateOldKept},
		stateSuspended: {EventGoOn: stateAsFound, EventEnded: stateEnded, EventPowerOff: statePoweredOff, EventCommit: stateCommitted},
		// A live rescue sees the end first, and a rescue from the pins again.
		stateEnded:      {EventEnded: stateEnded, EventPowerOff: statePoweredOff, EventCommit: stateOff},
		statePoweredOff: {EventCommit: StateStaysOff},
		stateCommitted: {EventCommit: stateCommitted, EventGoOn: stateCommitted, EventDestroy: stateOff, EventCrash: stateOff,
			EventRevert: stateAsFound, EventKeepOld: StateOldKept},
		stateOff:           {EventCommit: stateOff, EventNovaStop: StateStoppedByNova},
		StateStaysOff:      {EventCommit: StateStaysOff},
		StateStoppedByNova: {}, // the end
		StateOldKept:       {},
	}
}

// HasEnded is true when the domain has no QEMU (any more).
func (s State) HasEnded() bool {
	switch s {
	case stateEnded, statePoweredOff, stateOff, StateStaysOff:
		return true
	default:
		return false
	}
}

// canBeUndone is true while the domain's QEMU lives and nothing has happened to it that
// can't be undone.
func (s State) canBeUndone() bool { return !s.HasEnded() && !s.IsCommitted() }

// IsCommitted is true when the only way is forward.
func (s State) IsCommitted() bool {
	switch s {
	case stateCommitted, stateOff, StateStaysOff, StateStoppedByNova, StateOldKept:
		return true
	default:
		return false
	}
}
