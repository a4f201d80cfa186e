package recover

import (
	"cmp"
	"context"
	"time"
)

// Engine rescues instances on one compute node. Its fields are set once, before
// its first use; its methods are safe for concurrent use, but only one run at a
// time is let through on a host, whoever starts it.
type Engine struct {
	Settings   Settings
	Hypervisor Hypervisor
	Progress   Progress // never nil; NoProgress{} shows nothing
	// SignIn connects to Nova, for the first thing of a run that needs it. Its
	// errors are Cloud's. nil where only offline runs are made.
	SignIn func(ctx context.Context) (Cloud, error)
	// Failpoint, if not nil, is called at every journal point with its name,
	// "copy.begin" or "copy.done". It is how the tests crash a run at each one.
	Failpoint func(point string)

	// ownPins are what this process holds, as a scan takes it; nil but in a guard.
	ownPins func() ([]heldPin, error)

	rebootPoll time.Duration // how soon Nova is asked again how a reboot is; 0 is 300 ms
}

// firstLook is how long to wait before Nova is asked again how a reboot is.
func (e *Engine) firstLook() time.Duration {
	return cmp.Or(e.rebootPoll, 300*time.Millisecond)
}
