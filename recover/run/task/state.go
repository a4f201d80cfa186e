package task

import (
	"errors"
	"fmt"
)

// workState is where the work on a guest stands: what the run has done to its
// domain, and whether that can still be undone.
type workState string

// The states.
const (
	// stateAsFound: nothing was done to its domain, or all of that is undone.
	stateAsFound workState = "as found"
	// stateSuspended: the run has suspended it.
	stateSuspended workState = "suspended"
	// stateEnded: it has no QEMU, and did not have one before the run touched it, or
	// an interrupted run has destroyed it.
	stateEnded workState = "ended"
	// statePoweredOff: it has ended by itself in the middle of a rescue.
	statePoweredOff workState = "powered off"
	// stateCommitted: the only way is forward. Its QEMU is being ended, or runs on
	// new disks already, or Nova was asked to reboot it.
	stateCommitted workState = "committed"
	// stateOff: committed, and its QEMU is gone.
	stateOff workState = "off"
	// stateStaysOff: committed, and because it powered itself off it is not started.
	StateStaysOff workState = "stays off"
	// stateStoppedByNova: it was started, and Nova ends whatever libvirt starts of it.
	StateStoppedByNova workState = "stopped by Nova"
	// stateOldKept: it runs on new disks that differ from the old ones, and those
	// are on disk too.
	StateOldKept workState = "old disk kept"
)

// workEvent is what happens to a guest in a run.
type workEvent string

// The events.
const (
	EventSuspend  workEvent = "suspend"    // the run suspends it
	EventGoOn     workEvent = "go on"      // the suspend is undone
	EventEnded    workEvent = "ended"      // it is seen to have no QEMU
	EventPowerOff workEvent = "power off"  // the same, and it did that itself
	EventCommit   workEvent = "commit"     // what follows can't be undone
	EventDestroy  workEvent = "destroyed"  // its QEMU is gone by the run's hand
	EventRevert   workEvent = "revert"     // the commit came to nothing: it goes on as it was found
	EventNovaStop workEvent = "Nova stops" // Nova has ended it again after its start
	EventKeepOld  workEvent = "keep old"   // its old disks, which differ, are kept
)

// errTransition: something happened to a guest that can't happen in its state.
// That is a fault of os-rescue.
var errTransition = errors.New("impossible transition")

// after returns the state that follows s when e happens; errTransition when e
// can't happen in s.
func (s workState) after(e workEvent) (workState, error) {
	if next, ok := transitions()[s][e]; ok {
		return next, nil
	}
	return s, fmt.Errorf("%w: %q while the guest is %q", errTransition, e, s)
}

func transitions() map[workState]map[workEvent]workState {
	return map[workState]map[workEvent]workState{
		stateAsFound: {EventSuspend: stateSuspended, EventEnded: stateEnded, EventPowerOff: statePoweredOff, EventCommit: stateCommitted,
			EventKeepOld: StateOldKept},
		stateSuspended: {EventGoOn: stateAsFound, EventEnded: stateEnded, EventPowerOff: statePoweredOff, EventCommit: stateCommitted},
		// A live rescue sees the end first, and a rescue from the pins again.
		stateEnded:      {EventEnded: stateEnded, EventPowerOff: statePoweredOff, EventCommit: stateOff},
		statePoweredOff: {EventCommit: StateStaysOff},
		stateCommitted: {EventCommit: stateCommitted, EventGoOn: stateCommitted, EventDestroy: stateOff, EventRevert: stateAsFound,
			EventKeepOld: StateOldKept},
		stateOff:           {EventCommit: stateOff, EventNovaStop: StateStoppedByNova},
		StateStaysOff:      {EventCommit: StateStaysOff},
		StateStoppedByNova: {}, // the end
		StateOldKept:       {},
	}
}

// hasEnded is true when the domain has no QEMU (any more).
func (s workState) HasEnded() bool {
	switch s {
	case stateEnded, statePoweredOff, stateOff, StateStaysOff:
		return true
	default:
		return false
	}
}

// isCommitted is true when the only way is forward.
func (s workState) IsCommitted() bool {
	switch s {
	case stateCommitted, stateOff, StateStaysOff, StateStoppedByNova, StateOldKept:
		return true
	default:
		return false
	}
}
