package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/leftover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/verify"
)

// scanFunc is how a check scans the host.
type scanFunc = func(context.Context) (recover.Report, error)

// fake is an engine that gives the answers of a test and records the calls.
type fake struct {
	report   recover.Report
	plan     recover.Plan
	result   recover.RunReport
	runs     []recover.RunStatus
	began    recover.Options // of every run
	err      error           // of the method that does the work of the command
	execErr  error
	runsErr  error
	away     error // of every method that asks Nova
	wait     bool  // Execute waits until its context ends
	executed func()
	guarded  guard.Status
	released []string
	held     []leftover.Hold

	status    recover.RunStatus // of the run that is asked for
	keeper    pin.KeeperStatus
	unclaimed []leftover.Staging
	verified  verify.Report
	abandoned recover.Abandonment
	started   chan *fakeGuard // receives the guard that is made; nil: no test waits for it

	check func(context.Context, check.Options, scanFunc) (check.Report, error)

	mu      sync.Mutex
	calls   []string
	command recover.Command
	options recover.Options
}

func (f *fake) called(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) Scan(context.Context, recover.Hints) (recover.Report, error) {
	f.called("scan")
	return f.report, f.err
}

func (f *fake) VerifyBackup(_ context.Context, dir, _ string) (verify.Report, error) {
	f.called("verify %s", dir)
	return f.verified, f.err
}

func (f *fake) Check(ctx context.Context, o check.Options, scan scanFunc) (check.Report, error) {
	f.called("check")
	return f.check(ctx, o, scan)
}

func (f *fake) DryRun(_ context.Context, c recover.Command, o recover.Options) (recover.Plan, error) {
	f.called("dry-run")
	f.command, f.options = c, o
	return f.plan, f.unlessOffline(o.Offline)
}

func (f *fake) unlessOffline(offline bool) error {
	if !offline && f.away != nil {
		return f.away
	}
	return f.err
}

func (f *fake) Prepare(_ context.Context, c recover.Command, o recover.Options) (session, error) {
	f.called("prepare")
	f.command, f.options = c, o
	return &fakeSession{f}, f.unlessOffline(o.Offline)
}

func (f *fake) PrepareResume(_ context.Context, run string, offline bool) (session, error) {
	f.called("resume %s", run)
	f.options.Offline = offline
	return &fakeSession{f}, f.unlessOffline(offline)
}

func (f *fake) PrepareAbandon(_ context.Context, run string, offline bool) (abandonment, error) {
	f.called("abandon %s", run)
	f.options.Offline = offline
	return &fakeAbandonment{f}, f.err
}

func (f *fake) Runs(context.Context) ([]recover.RunStatus, error) { return f.runs, f.runsErr }

func (f *fake) Run(_ context.Context, id string) (recover.RunStatus, error) {
	if f.status.Run != "" {
		return f.status, f.err
	}
	return recover.RunStatus{Run: id, State: recover.RunFinished, Options: f.began}, f.err
}

func (f *fake) Undo(context.Context, string, *os.File, []*os.File) error { return nil }

func (f *fake) RunReport(_ context.Context, id string) (recover.RunReport, error) {
	if f.result.Run != "" {
		return f.result, f.err
	}
	return recover.RunReport{Run: id}, f.err
}

func (f *fake) Keeper(context.Context) (pin.KeeperStatus, error) {
	return f.keeper, nil
}

func (f *fake) Guard(context.Context) (guard.Status, error) { return f.guarded, f.err }

func (f *fake) Unclaimed() ([]leftover.Staging, error) { return f.unclaimed, nil }

func (f *fake) KeeperHolds(context.Context, []string) ([]leftover.Hold, error) {
	return f.held, f.err
}

func (f *fake) KeeperRelease(_ context.Context, holds []leftover.Hold, last bool) ([]leftover.Hold, error) {
	f.called("release %d, last copies: %t", len(holds), last)
	return holds, f.err
}

func (f *fake) GuardRelease(_ context.Context, uuid string) error {
	f.released = append(f.released, uuid)
	return nil
}

func (f *fake) NewGuard(o guard.Options, _ guard.Shelf, _ []*os.File) (guardian, error) {
	g := &fakeGuard{fake: f, options: make(chan guard.Options, 8)}
	g.options <- o
	return g, f.err
}

// fakeGuard runs until its context ends.
type fakeGuard struct {
	*fake
	options chan guard.Options
}

func (g *fakeGuard) Run(ctx context.Context, ready func()) error {
	ready()
	if g.started != nil {
		g.started <- g
	}
	<-ctx.Done()
	return nil
}

func (g *fakeGuard) Configure(o guard.Options) { g.options <- o }

func (g *fakeGuard) Status() guard.Status { return g.guarded }

type fakeSession struct{ *fake }

type fakeAbandonment struct{ *fake }

func (a *fakeAbandonment) Plan() recover.Abandonment { return a.abandoned }

func (a *fakeAbandonment) Execute(_ context.Context, choice recover.AbandonChoice) (recover.Abandonment, error) {
	a.called("end %+v", choice)
	return a.abandoned, a.execErr
}

func (a *fakeAbandonment) Close() { a.called("close") }

func (s *fakeSession) Plan() recover.Plan { return s.plan }

func (s *fakeSession) Execute(ctx context.Context) (recover.RunReport, error) {
	s.called("execute")
	if s.executed != nil {
		s.executed()
	}
	if s.wait {
		<-ctx.Done()
		s.result.Interrupted = true
	}
	return s.result, s.execErr
}

func (s *fakeSession) Abandon(context.Context) error { s.called("abandon"); return nil }

func (s *fakeSession) Close() { s.called("close") }
