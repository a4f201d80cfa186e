package recover

import (
	"cmp"
	"context"
	"fmt"
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

func (e *Engine) scanner() *scanner {
	return newScanner(e.Settings, e.Hypervisor, func(ctx context.Context) ([]heldPin, error) {
		if e.ownPins == nil {
			return pinsOfHost(ctx, e.Settings.StateDir)
		}
		pins, err := pinsOfKeeper(ctx, e.Settings.StateDir)
		if err != nil {
			return nil, err
		}
		own, err := e.ownPins()
		return append(pins, own...), err
	})
}

// Scan looks at every domain of the host and at the files it needs.
func (e *Engine) Scan(ctx context.Context) (Report, error) { return e.scan(ctx, nil) }

func (e *Engine) scan(ctx context.Context, holders []int) (Report, error) {
	return e.scanner().host(ctx, holders)
}

func (e *Engine) scanInstance(ctx context.Context, d Domain) (Instance, error) {
	return e.scanner().domain(ctx, d)
}

func (e *Engine) runs() hostRuns { return runsOf(e.Settings.StateDir) }

// Runs returns every run of this host, the newest first.
func (e *Engine) Runs(ctx context.Context) ([]RunStatus, error) { return e.runs().all(ctx) }

// Run returns the run of that name.
func (e *Engine) Run(_ context.Context, id string) (RunStatus, error) { return e.runs().find(id) }

// RunReport returns the report of a run.
func (e *Engine) RunReport(_ context.Context, id string) (RunReport, error) {
	return e.runs().report(id)
}

// Keeper returns what the keeper of this host holds.
func (e *Engine) Keeper(ctx context.Context) (KeeperStatus, error) {
	return keeperStatus(ctx, e.Settings.StateDir)
}

func (e *Engine) provenFiles() (provenFiles, error) { return e.runs().published() }

func (e *Engine) unsettled(ctx context.Context) (map[string]string, error) {
	return e.runs().unsettled(ctx)
}

// signIn connects to Nova for a run that asks it; nil for all others.
func (e *Engine) signIn(ctx context.Context, command Command, o Options) (Cloud, error) {
	if command == CommandBackup || o.Offline || e.SignIn == nil {
		if command == CommandReboot {
			return nil, fmt.Errorf("%w: a hard reboot is made by Nova: it can't be done offline", ErrUsage)
		}
		return nil, nil
	}
	return e.SignIn(ctx)
}

func (e *Engine) makePlan(ctx context.Context, cloud Cloud, command Command, o Options, chosen selected, resuming bool) (Plan, error) {
	unsettled, err := e.unsettled(ctx)
	if err != nil {
		return Plan{}, err
	}
	return makePlan(ctx, planRequest{Settings: e.Settings, Hypervisor: e.Hypervisor, Cloud: cloud, Command: command, Options: o,
		Chosen: chosen, Unsettled: unsettled, Resuming: resuming})
}
