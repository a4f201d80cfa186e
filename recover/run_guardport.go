package recover

import (
	"context"
)

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
