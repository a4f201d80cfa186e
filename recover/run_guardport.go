package recover

import (
	"context"
)

// GuardDeps are what a guard of the engine's host works with.
func (e *Engine) GuardDeps() GuardDeps {
	scan := func(ctx context.Context, pins func() ([]heldPin, error)) (Report, error) {
		own := *e // a copy: the guard's pins are this scan's alone
		own.ownPins = pins
		return own.Scan(ctx)
	}
	return GuardDeps{Settings: e.Settings, Hypervisor: e.Hypervisor, Scan: scan, Proven: e.provenFiles, Unsettled: e.unsettled}
}

// Guard returns what the guard of this host knows, as AskGuard does.
func (e *Engine) Guard(ctx context.Context) (GuardStatus, error) {
	return AskGuard(ctx, e.Settings.StateDir)
}

// GuardRelease lets an instance's deleted files go, as ReleaseByHand does.
func (e *Engine) GuardRelease(ctx context.Context, uuid string) error {
	return ReleaseByHand(ctx, e.Settings.StateDir, uuid)
}

// Check reports this host's health, as the function Check does. scan is how this
// host is scanned when the guard's report can't be used: e.Scan, or a function that
// connects to a hypervisor first.
func (e *Engine) Check(ctx context.Context, o CheckOptions, scan func(context.Context) (Report, error)) (CheckReport, error) {
	return Check(ctx, CheckSources{Host: e.Settings.Host, Guard: e.Guard, Runs: e.unfinished, Keeper: e.Keeper, Scan: scan}, o)
}

func (e *Engine) unfinished(ctx context.Context) ([]UnfinishedRun, error) {
	all, err := e.Runs(ctx)
	if err != nil {
		return nil, err
	}
	return unfinishedRuns(stateDir(e.Settings.StateDir), all), nil
}
