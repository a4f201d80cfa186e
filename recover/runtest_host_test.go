package recover

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// host is a compute node of the tests: a state directory with its keeper, and a
// fake hypervisor whose guests are real processes that hold real files.
type host struct {
	t        testing.TB
	settings Settings
	hv       *fakeHypervisor
	cloud    *fakeCloud // nil offline
}

// newHost makes a host whose processes are ended after the test.
func newHost(t testing.TB) *host {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "recover-test-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	must(t, err)
	state := filepath.Join(dir, "state")
	must(t, os.Mkdir(state, 0o700))
	settings := DefaultSettings()
	settings.Host = "node"
	settings.StateDir = state
	settings.InstancesPath = filepath.Join(dir, "nova/instances")
	settings.Owners = ownersOf("root", "root", "root", "root", "root")
	settings.Headroom = 0
	settings.FreezeTimeout = time.Second
	settings.StartTimeout = 5 * time.Second
	settings.RebootTimeout = 10 * time.Second
	settings.Watch = 0
	settings.KeeperCommand = []string{"/usr/bin/env", "RECOVER_TEST=keeper", "RECOVER_DIR=" + state, self}
	h := &host{t: t, settings: settings, hv: &fakeHypervisor{domains: map[string]*fakeDomain{}, gone: map[string]*fakeDomain{},
		errs: map[string]error{}}}
	t.Cleanup(func() {
		h.hv.endAll()
		h.killKeeper()
	})
	must(t, os.MkdirAll(settings.InstancesPath, 0o755))
	return h
}

// elsewhere is the same host with another, empty instances directory.
func (h *host) elsewhere(t testing.TB) *host {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(h.settings.StateDir), "site-")
	must(t, err)
	other := &host{t: t, settings: h.settings, hv: &fakeHypervisor{domains: map[string]*fakeDomain{}, gone: map[string]*fakeDomain{},
		errs: map[string]error{}}}
	other.settings.InstancesPath = filepath.Join(dir, "instances")
	must(t, os.MkdirAll(other.settings.InstancesPath, 0o755))
	t.Cleanup(other.hv.endAll)
	// Journals of runs elsewhere only cost time.
	runs := stateDir(h.settings.StateDir).runs()
	must(t, os.RemoveAll(runs))
	must(t, os.Mkdir(runs, 0o700))
	return other
}

func (h *host) engine() *Engine {
	e := &Engine{Settings: h.settings, Hypervisor: h.hv, Progress: NoProgress{}, pollInterval: 5 * time.Millisecond}
	if h.cloud != nil {
		e.SignIn = func(context.Context) (Cloud, error) { return h.cloud, nil }
	}
	return e
}

// run prepares and executes.
func (h *host) run(ctx context.Context, command Command, o Options) (RunReport, error) {
	h.t.Helper()
	s, err := h.engine().Prepare(ctx, command, o)
	must(h.t, err)
	defer s.Close()
	return s.Execute(ctx)
}

// resume finishes a run.
func (h *host) resume(ctx context.Context, run string) (RunReport, error) {
	h.t.Helper()
	s, err := h.engine().PrepareResume(ctx, run, false)
	if err != nil {
		return RunReport{}, err
	}
	defer s.Close()
	return s.Execute(ctx)
}

// crashAt runs a command up to its k-th journal record and leaves everything as
// it is at that moment, as kill -9 does: what was the run stands still for ever,
// and the kernel has dropped its lock. The run's name is "" if it ended before.
func (h *host) crashAt(command Command, o Options, k int) (run, point string) {
	h.t.Helper()
	return h.crashIn(command, o, func(e *Engine, here func(string)) {
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

// crashIn is crashAt for a crash at whatever calls here.
func (h *host) crashIn(command Command, o Options, install func(e *Engine, here func(point string))) (run, point string) {
	h.t.Helper()
	e := h.engine()
	crashed, ended := make(chan string), make(chan error)
	install(e, func(point string) {
		crashed <- point
		select {}
	})
	go func() {
		s, err := e.Prepare(context.WithoutCancel(h.t.Context()), command, o)
		if err == nil {
			_, err = s.Execute(context.WithoutCancel(h.t.Context()))
			s.Close()
		}
		ended <- err
	}()
	select {
	case point = <-crashed:
	case err := <-ended:
		must(h.t, err)
		return "", ""
	}
	info, running := stateDir(h.settings.StateDir).running()
	if !running {
		h.t.Fatal("no run holds the lock at " + point)
	}
	h.dropLock()
	return info.Run, point
}

// records returns a run's journal.
func (h *host) records(run string) []Record {
	h.t.Helper()
	r, err := readJournal(stateDir(h.settings.StateDir).run(run))
	must(h.t, err)
	return r
}

func points(records []Record) []string {
	var p []string
	for _, r := range records {
		p = append(p, r.Point())
	}
	return p
}

// smallHost is a host whose instances directory is a file system of that size.
func smallHost(t *testing.T, size string) *host {
	t.Helper()
	h := newHost(t)
	dir := filepath.Dir(h.settings.InstancesPath)
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=755"))
	t.Cleanup(func() {
		h.hv.endAll()
		h.killKeeper()
		unix.Unmount(dir, unix.MNT_DETACH)
	})
	must(t, os.Mkdir(h.settings.InstancesPath, 0o755))
	return h
}

// planned returns the plan that a run of these options would make for a guest.
func (h *host) planned(g *testGuest, command Command, o Options) InstancePlan {
	t := h.t
	t.Helper()
	whole, err := h.engine().DryRun(t.Context(), command, o)
	must(t, err)
	for _, todo := range whole.Instances {
		if todo.UUID == g.uuid {
			return todo
		}
	}
	t.Fatal("it is not in the plan")
	return InstancePlan{}
}

// scan returns the instance as a scan sees it now.
func (h *host) scan(g *testGuest) Instance {
	h.t.Helper()
	r, err := h.scanAll(h.t.Context())
	must(h.t, err)
	for _, i := range r.Instances {
		if i.UUID == g.uuid {
			return i
		}
	}
	h.t.Fatal("the scan does not have it")
	return Instance{}
}

// scanAll scans the host.
func (h *host) scanAll(ctx context.Context) (Report, error) { return h.scanner().host(ctx, nil) }

func (h *host) scanner() *scanner {
	return newScanner(h.settings, h.hv, lister(h.settings.StateDir, nil))
}

func (h *host) runs() hostRuns { return runsOf(h.settings.StateDir) }

// crashPoint finds the number of the first journal record of that name and path.
func crashPoint(t *testing.T, h *host, command Command, o func(*testGuest) Options, add guestOptions, point string, base string) int {
	t.Helper()
	s := h.elsewhere(t)
	g := s.add(900, add)
	s.purge()
	report, err := s.run(t.Context(), command, o(g))
	must(t, err)
	for n, r := range s.records(report.Run) {
		if r.Point() == point && (base == "" || filepath.Base(r.Path) == base) {
			return n + 1
		}
	}
	t.Fatalf("no record %s in %v", point, points(s.records(report.Run)))
	return 0
}

// planOnline is the plan of a rescue with Nova, which changes nothing there.
func planOnline(t *testing.T, h *host, o Options) (Plan, error) {
	t.Helper()
	whole, err := h.engine().DryRun(t.Context(), CommandRescue, o)
	for _, method := range []string{"Lock", "Unlock", "HardReboot", "Pause"} {
		if n := h.cloud.called(method, ""); n > 0 {
			t.Errorf("a whole made %d calls of %s", n, method)
		}
	}
	return whole, err
}

func planOf1(t *testing.T, whole Plan, uuid string) InstancePlan {
	t.Helper()
	n := slices.IndexFunc(whole.Instances, func(i InstancePlan) bool { return i.UUID == uuid })
	if n < 0 {
		t.Fatalf("it is not in the whole: %+v", whole)
	}
	return whole.Instances[n]
}
