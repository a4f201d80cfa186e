package runtest

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/scan"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// Host is a compute node with an engine.
type Host struct{ *recovertest.Host }

// NewHost makes a host whose processes are ended after the test.
func NewHost(t testing.TB) *Host {
	t.Helper()
	return &Host{recovertest.NewHost(t)}
}

// SmallHost is a host whose instances directory is on a file system of that size, as
// tmpfs takes it ("2m").
func SmallHost(t testing.TB, size string) *Host {
	t.Helper()
	return &Host{recovertest.SmallHost(t, size)}
}

// Ext4Host is a host whose instances directory is on an ext4 (recovertest.Ext4Host).
func Ext4Host(t testing.TB, args ...string) *Host {
	t.Helper()
	return &Host{recovertest.Ext4Host(t, args...)}
}

// Elsewhere is the same host with another, empty instances directory and hypervisor.
func (h *Host) Elsewhere(t testing.TB) *Host {
	t.Helper()
	return &Host{h.Host.Elsewhere(t)}
}

// Engine is the host's engine, with Nova where the host has one. It asks Nova more
// often than it would outside of tests.
func (h *Host) Engine() *run.Engine {
	e := &run.Engine{
		Settings:     h.Settings,
		Hypervisor:   h.HV,
		Progress:     recover.NoProgress{},
		PollInterval: 5 * time.Millisecond,
	}
	if h.Cloud != nil {
		e.SignIn = func(context.Context) (recover.Cloud, error) { return h.Cloud, nil }
	}
	return e
}

// Scanner is what the host's engine scans with.
func (h *Host) Scanner() *scan.Scanner {
	return scan.New(h.Settings, h.HV, pin.Lister(h.Settings.StateDir, nil))
}

// Scan returns the instance as a scan sees it now.
func (h *Host) Scan(g *recovertest.Guest) recover.Instance {
	h.T.Helper()
	r, err := h.ScanAll(h.T.Context())
	recovertest.Must(h.T, err)
	for _, i := range r.Instances {
		if i.UUID == g.UUID {
			return i
		}
	}
	h.T.Fatal("the scan does not have it")
	return recover.Instance{}
}

// ScanAll scans the host.
func (h *Host) ScanAll(ctx context.Context) (recover.Report, error) {
	return h.Scanner().Host(ctx, recover.Hints{})
}

// Runs are the host's runs.
func (h *Host) Runs() runs.Runs { return runs.Of(h.Settings.StateDir) }

// State is the host's state directory.
func (h *Host) State() statedir.Dir { return statedir.Dir(h.Settings.StateDir) }

// Journal returns the records of a run.
func (h *Host) Journal(run string) []journal.Record {
	h.T.Helper()
	records, err := journal.Read(h.State().Run(run))
	recovertest.Must(h.T, err)
	return records
}

// Points are the names of records: "copy.begin".
func Points(records []journal.Record) []string {
	var points []string
	for _, r := range records {
		points = append(points, r.Point())
	}
	return points
}

// Run prepares a run and executes it.
func (h *Host) Run(ctx context.Context, command recover.Command, o recover.Options) (recover.RunReport, error) {
	h.T.Helper()
	s, err := h.Engine().Prepare(ctx, command, o)
	recovertest.Must(h.T, err)
	defer s.Close()
	return s.Execute(ctx)
}

// Resume finishes an interrupted run, which goes on with Nova where it began so.
func (h *Host) Resume(ctx context.Context, name string) (recover.RunReport, error) {
	h.T.Helper()
	s, err := h.Engine().PrepareResume(ctx, name, false)
	if err != nil {
		return recover.RunReport{}, err
	}
	defer s.Close()
	return s.Execute(ctx)
}

// Abandon ends a run by hand.
func (h *Host) Abandon(ctx context.Context, name string, choice recover.AbandonChoice) (recover.Abandonment, error) {
	h.T.Helper()
	a, err := h.Engine().PrepareAbandon(ctx, name, false)
	if err != nil {
		return recover.Abandonment{}, err
	}
	defer a.Close()
	return a.Execute(ctx, choice)
}

// Planned returns the plan that a run of these options would make for a guest.
func (h *Host) Planned(g *recovertest.Guest, command recover.Command, o recover.Options) recover.InstancePlan {
	h.T.Helper()
	plan, err := h.Engine().DryRun(h.T.Context(), command, o)
	recovertest.Must(h.T, err)
	for _, todo := range plan.Instances {
		if todo.UUID == g.UUID {
			return todo
		}
	}
	h.T.Fatal("it is not in the plan")
	return recover.InstancePlan{}
}

// CrashAt runs a command up to its k-th journal record, counted from 1, and leaves
// everything as it is at that moment, as kill -9 does: what was the run stands still for
// ever, and its lock is dropped. It returns the run's name, "" if that ended before, and
// the record's point.
func (h *Host) CrashAt(command recover.Command, o recover.Options, k int) (name, point string) {
	h.T.Helper()
	return h.CrashIn(command, o, func(e *run.Engine, here func(string)) {
		var mu sync.Mutex
		n := 0
		e.Failpoint = func(point string) {
			mu.Lock()
			n++
			now := n == k
			mu.Unlock()
			if now {
				here(point)
			}
		}
	})
}

// CrashIn is CrashAt for a crash at the first call of here, which install puts into the
// engine. here is told the name of its point, which CrashIn returns.
func (h *Host) CrashIn(
	command recover.Command, o recover.Options, install func(e *run.Engine, here func(point string)),
) (name, point string) {
	h.T.Helper()
	e := h.Engine()
	crashed, ended := make(chan string), make(chan error)
	var dead atomic.Bool
	install(e, func(point string) {
		if dead.CompareAndSwap(false, true) {
			crashed <- point
		}
		select {}
	})
	// Nothing of a dead run goes on: not another instance's work, and not its watch over the
	// keeper, which would start one whenever a test has ended the last.
	failpoint := e.Failpoint
	e.Failpoint = func(point string) {
		if dead.Load() {
			select {}
		}
		if failpoint != nil {
			failpoint(point)
		}
	}
	go func() {
		s, err := e.Prepare(context.WithoutCancel(h.T.Context()), command, o)
		if err == nil {
			_, err = s.Execute(context.WithoutCancel(h.T.Context()))
			s.Close()
		}
		ended <- err
	}()
	select {
	case point = <-crashed:
	case err := <-ended:
		recovertest.Must(h.T, err)
		return "", ""
	}
	info, running := h.State().Running()
	if !running {
		h.T.Fatal("no run holds the lock at " + point)
	}
	h.DropLock()
	return info.Run, point
}

// CrashPoint returns which record of a run is of that point, counted from 1: the one about
// the file of that name, or the first one for an empty name. It finds out with the run of a
// guest like add elsewhere; o returns the run's options.
func CrashPoint(
	t *testing.T,
	h *Host,
	command recover.Command,
	o func(*recovertest.Guest) recover.Options,
	add recovertest.GuestOptions,
	point, name string,
) int {
	t.Helper()
	s := h.Elsewhere(t)
	g := s.Add(900, add)
	s.Purge()
	report, err := s.Run(t.Context(), command, o(g))
	recovertest.Must(t, err)
	records := s.Journal(report.Run)
	for n, r := range records {
		if r.Point() == point && (name == "" || filepath.Base(r.Path) == name) {
			return n + 1
		}
	}
	t.Fatalf("no record %s in %v", point, Points(records))
	return 0
}

// PlanOnline returns the plan of a rescue with Nova, and fails the test if the plan
// changed anything there.
func PlanOnline(t *testing.T, h *Host, o recover.Options) (recover.Plan, error) {
	t.Helper()
	plan, err := h.Engine().DryRun(t.Context(), recover.CommandRescue, o)
	for _, method := range []string{"Lock", "Unlock", "HardReboot", "Pause"} {
		if n := h.Cloud.Called(method, ""); n > 0 {
			t.Errorf("a plan made %d calls of %s", n, method)
		}
	}
	return plan, err
}

// PlanOf returns the plan of one instance, which must be there.
func PlanOf(t *testing.T, plan recover.Plan, uuid string) recover.InstancePlan {
	t.Helper()
	n := slices.IndexFunc(plan.Instances, func(i recover.InstancePlan) bool { return i.UUID == uuid })
	if n < 0 {
		t.Fatalf("it is not in the plan: %+v", plan)
	}
	return plan.Instances[n]
}
