package recover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Check says how this host is, for monitoring: what the guard knows, or a scan of
// its own when no guard runs or its last scan is too old; the unfinished runs; what
// the keeper holds. It changes nothing.
//
// scan is how this host is scanned when the guard does not do: e.Scan, or what
// connects to a hypervisor first. It returns when ctx ends, whatever hangs: what
// could not be found out by then is a finding of level UNKNOWN. The error is for
// options that contradict themselves (ErrUsage) alone.
func (e *Engine) Check(ctx context.Context, o CheckOptions, scan func(context.Context) (Report, error)) (CheckReport, error) {
	return e.check(ctx, o, e.Guard, scan)
}

func (e *Engine) check(ctx context.Context, o CheckOptions, guard func(context.Context) (GuardStatus, error), scan func(context.Context) (Report, error)) (CheckReport, error) {
	if err := o.complete(); err != nil {
		return CheckReport{}, err
	}
	f := checkFacts{host: e.Settings.Host}
	// If the guard hangs there must be time to look without it.
	f.guard, f.guardErr = limited(ctx, 3, "the guard", guard)
	f.runs, f.runsErr = limited(ctx, 1, "the journals of the runs", e.unfinished)
	f.keeper, f.keeperErr = limited(ctx, 1, "the keeper", e.Keeper)
	f.now = time.Now().UTC()
	if !f.guarded(o) {
		if f.report, f.scanErr = limited(ctx, 1, "the scan of this host", scan); f.scanErr == nil {
			f.source, f.scanned = SourceScan, f.report.Taken
			return f.sum(o), nil
		}
	}
	if !f.guard.Scanned.IsZero() || len(f.guard.Incidents) > 0 { // old, but better than nothing
		f.source, f.scanned, f.report = SourceGuard, f.guard.Scanned, f.guard.Report
	}
	return f.sum(o), nil
}

// complete fills in the defaults.
func (o *CheckOptions) complete() error {
	if o.Warning < 0 || o.Critical < 0 || o.WarningHeld < 0 || o.CriticalHeld < 0 || o.MaxAge < 0 {
		return fmt.Errorf("%w: a threshold of a check must not be negative", ErrUsage)
	}
	o.Critical = max(o.Critical, 1)
	o.Warning = max(o.Warning, 1)
	if o.MaxAge == 0 {
		o.MaxAge = DefaultCheckMaxAge
	}
	switch {
	case o.Warning > o.Critical:
		return fmt.Errorf("%w: the warning at %d instances would come after the critical at %d", ErrUsage, o.Warning, o.Critical)
	case o.CriticalHeld > 0 && o.WarningHeld > o.CriticalHeld:
		return fmt.Errorf("%w: the warning at %d held bytes would come after the critical at %d", ErrUsage, o.WarningHeld, o.CriticalHeld)
	}
	return nil
}

// limited asks what may hang, in a call of libvirt or of a dead file system, and
// gives up when its share of the time that is left is over: 1 is all of it, 3 a third.
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
		return none, fmt.Errorf("%s: no answer in time: %w", who, context.Cause(ctx))
	}
}

// unfinished returns the runs that have not come to their end, the newest first.
func (e *Engine) unfinished(ctx context.Context) ([]UnfinishedRun, error) {
	runs, err := e.Runs(ctx)
	if err != nil {
		return nil, err
	}
	unfinished := []UnfinishedRun{}
	for _, r := range runs {
		if r.State == RunFinished {
			continue
		}
		u := UnfinishedRun{Run: r.Run, Command: r.Command, State: r.State, Started: r.Started, Error: r.Error}
		if r.State != RunRunning {
			var err error
			if u.HalfDone, err = e.halfDone(r.Run); err != nil && u.Error == "" {
				u.Error = err.Error()
			}
		}
		unfinished = append(unfinished, u)
	}
	return unfinished, nil
}

// halfDone returns the instances of an interrupted run whose live rescue it had
// begun and not settled. Of a damaged journal what can be read counts.
func (e *Engine) halfDone(run string) ([]HalfDone, error) {
	records, err := readJournal(stateDir(e.Settings.StateDir).run(run))
	plan, _, perr := planOf(records)
	priors, rerr := priorsOf(records)
	planned := map[string]InstancePlan{}
	for _, ip := range plan.Instances {
		planned[ip.UUID] = ip
	}
	last := map[string]string{}
	for _, r := range records {
		last[r.Instance] = r.Point()
	}
	var half []HalfDone
	for _, uuid := range slices.Sorted(maps.Keys(priors)) {
		p, ip := priors[uuid], planned[uuid]
		if p.replanned != nil {
			ip = *p.replanned
		}
		if ip.Action == ActionLive && p.begun && (p.settlement == nil || !p.settlement.Settled) {
			half = append(half, HalfDone{UUID: uuid, Domain: ip.Domain, Name: ip.Name, Last: last[uuid]})
		}
	}
	slices.SortFunc(half, func(a, b HalfDone) int { return cmp.Compare(a.Domain, b.Domain) })
	return half, errors.Join(err, perr, rerr)
}
