package check

import (
	"context"
	"fmt"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/runs"
)

// Sources are where a check gets its facts. It gives up on one that does not answer in
// time, and may end before that has returned.
type Sources struct {
	Host string // this host's name
	// Guard returns what the guard knows, not Running when there is none.
	Guard func(context.Context) (guard.Status, error)
	// Runs returns the unfinished runs, the newest first.
	Runs func(context.Context) ([]runs.UnfinishedRun, error)
	// Keeper returns what the keeper holds, not Running when there is none.
	Keeper func(context.Context) (pin.KeeperStatus, error)
	// Scan scans this host. It is called only when the guard's report can't be used.
	Scan func(context.Context) (recover.Report, error)
}

// Make reports this host's health, for monitoring: what the guard knows, or a scan when no
// guard runs or its last scan is too old; the unfinished runs; the files that the keeper
// holds. It changes nothing.
//
// It returns when ctx ends even if a source hangs: what could not be found out by then is a
// finding of its own. The only error is recover.ErrUsage, for options that contradict
// themselves.
func Make(ctx context.Context, from Sources, o Options) (Report, error) {
	if err := o.complete(); err != nil {
		return Report{}, err
	}
	f := checkFacts{host: from.Host}
	// If the guard hangs there must be time to look without it.
	f.guard, f.guardErr = limited(ctx, 3, "the guard", from.Guard)
	f.runs, f.runsErr = limited(ctx, 1, "the journals of the runs", from.Runs)
	f.keeper, f.keeperErr = limited(ctx, 1, "the keeper", from.Keeper)
	f.now = time.Now().UTC()
	if !f.isGuardEnough(o) {
		if f.guardErr != nil {
			ctx = pin.WithoutGuard(ctx, f.guardErr)
		}
		if f.report, f.scanErr = limited(ctx, 1, "the scan of this host", from.Scan); f.scanErr == nil {
			f.source, f.scanned = SourceScan, f.report.Taken
			return f.sum(o), nil
		}
	}
	if !f.guard.Scanned.IsZero() || len(f.guard.Incidents) > 0 { // old, but better than nothing
		f.source, f.scanned, f.report = SourceGuard, f.guard.Scanned, f.guard.Report
	}
	return f.sum(o), nil
}

// limited asks a source that may hang, in a call of libvirt or of a dead file
// system, and gives up when its share of the remaining time is over: 1 is all of
// it, 3 a third.
func limited[T any](ctx context.Context, share int, who string, ask func(context.Context) (T, error)) (T, error) {
	cancel := context.CancelFunc(func() {})
	if end, ok := ctx.Deadline(); ok {
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(share))
	}
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := ask(ctx)
		answers <- answer{value, err}
	}()
	var none T
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		return none, fmt.Errorf("%s: %w", who, context.Cause(ctx))
	}
}

// SourcesOf returns the sources of the host with these settings. scan becomes Sources.Scan:
// it may connect to the hypervisor first.
func SourcesOf(settings recover.Settings, scan func(context.Context) (recover.Report, error)) Sources {
	return Sources{
		Host:   settings.Host,
		Guard:  func(ctx context.Context) (guard.Status, error) { return guard.Ask(ctx, settings.StateDir) },
		Runs:   runs.Of(settings.StateDir).Unfinished,
		Keeper: func(ctx context.Context) (pin.KeeperStatus, error) { return pin.Keeper(ctx, settings.StateDir) },
		Scan:   scan,
	}
}
