package recover

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// TestMain lets the test binary be a keeper.
func TestMain(m *testing.M) {
	if os.Getenv("RECOVER_TEST") == "keeper" {
		if err := keeper.Serve(context.Background(), keeper.Options{Dir: os.Getenv("RECOVER_DIR"), Idle: 2 * time.Second}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests look into other processes, run keepers and give files to other users: they must run as root")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is a compute node of the tests: a state directory with its keeper, and a
// fake hypervisor whose guests are real processes that hold real files.
type host struct {
	t        testing.TB
	settings Settings
	hv       *fakeHypervisor
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
	settings.Watch = 0
	settings.KeeperCommand = []string{"/usr/bin/env", "RECOVER_TEST=keeper", "RECOVER_DIR=" + state, self}
	h := &host{t: t, settings: settings, hv: &fakeHypervisor{domains: map[string]*fakeDomain{}, errs: map[string]error{}}}
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
	other := &host{t: t, settings: h.settings, hv: &fakeHypervisor{domains: map[string]*fakeDomain{}, errs: map[string]error{}}}
	other.settings.InstancesPath = filepath.Join(dir, "instances")
	must(t, os.MkdirAll(other.settings.InstancesPath, 0o755))
	t.Cleanup(other.hv.endAll)
	// Journals of runs elsewhere only cost time.
	runs := stateDir(h.settings.StateDir).runs()
	must(t, os.RemoveAll(runs))
	must(t, os.Mkdir(runs, 0o700))
	return other
}

// killKeeper ends the host's keeper, if one runs, and waits for its end.
func (h *host) killKeeper() {
	lock := filepath.Join(h.settings.StateDir, "keeper.lock")
	data, err := os.ReadFile(lock)
	if err != nil {
		return
	}
	f, err := os.Open(lock)
	if err != nil {
		return
	}
	defer f.Close()
	if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid > 1 &&
		unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		unix.Kill(pid, unix.SIGKILL)
		for unix.Flock(int(f.Fd()), unix.LOCK_EX) == unix.EINTR {
		}
	}
}

func (h *host) engine() *Engine {
	return &Engine{Settings: h.settings, Hypervisor: h.hv, Progress: NoProgress{}}
}

// guest is one instance with the content that its files must have.
type guest struct {
	h       *host
	uuid    string
	dir     string
	disk    string
	base    string // empty without one
	console string
	content map[string][]byte // of every file, by path
}

type guestOptions struct {
	base    string // name in _base; made if it is not there
	console bool
	config  bool
	agent   bool
	state   DomainState // StateRunning if empty
	noNova  bool
}

func testUUID(n int) string { return fmt.Sprintf("0b8b7d5e-3a51-4a1c-a0b5-%012x", n) }

// payload is n bytes of which the third quarter is a hole.
func payload(seed, n int) []byte {
	rnd := rand.New(rand.NewPCG(uint64(seed), 1))
	data := make([]byte, n)
	for i := range data {
		if i < n/2 || i >= n*3/4 {
			data[i] = byte(rnd.Uint32())
		}
	}
	return data
}

// add makes an instance's files and starts it.
func (h *host) add(n int, o guestOptions) *guest {
	t := h.t
	t.Helper()
	g := &guest{h: h, uuid: testUUID(n), content: map[string][]byte{}}
	g.dir = filepath.Join(h.settings.InstancesPath, g.uuid)
	g.disk = filepath.Join(g.dir, "disk")
	must(t, os.MkdirAll(g.dir, 0o755))
	write := func(path string, data []byte) {
		g.content[path] = data
		if _, err := os.Stat(path); err == nil {
			return
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, data, 0o600))
	}
	d := Domain{UUID: g.uuid, Name: fmt.Sprintf("instance-%08x", n), State: StateShutOff, Persistent: true,
		Nova: &NovaMetadata{Name: fmt.Sprintf("vm%d", n), ProjectID: "p1", ProjectName: "project"}}
	if o.noNova {
		d.Nova = nil
	}
	chain := []Image{{Source: SourceFile, Path: g.disk, Format: "raw"}}
	if o.base != "" {
		g.base = filepath.Join(h.settings.InstancesPath, "_base", o.base)
		write(g.base, payload(1000, 64<<10))
		chain = append(chain, Image{Source: SourceFile, Path: g.base, Format: "raw"})
	}
	write(g.disk, payload(n, 96<<10))
	d.Disks = append(d.Disks, Disk{Target: "vda", Device: "disk", Chain: chain, ChainKnown: true})
	if o.config {
		path := filepath.Join(g.dir, "disk.config")
		write(path, payload(n+100, 8<<10))
		d.Disks = append(d.Disks, Disk{Target: "hdd", Device: "cdrom", ReadOnly: true, ChainKnown: true,
			Chain: []Image{{Source: SourceFile, Path: path, Format: "raw"}}})
	}
	if o.console {
		g.console = filepath.Join(g.dir, "console.log")
		write(g.console, []byte("login: "))
		d.ConsoleLogs = []string{g.console}
	}
	if d.Nova != nil {
		info, err := diskInfoContent(diskInfo(d, h.settings.InstancesPath))
		must(t, err)
		write(filepath.Join(g.dir, diskInfoName), []byte(info))
	}
	h.hv.add(d, o.agent)
	switch o.state {
	case "", StateRunning:
		must(t, h.hv.Start(t.Context(), g.uuid, false))
	case StatePaused:
		must(t, h.hv.Start(t.Context(), g.uuid, true))
	}
	return g
}

// purge deletes everything below the instances directory.
func (h *host) purge() {
	h.t.Helper()
	entries, err := os.ReadDir(h.settings.InstancesPath)
	must(h.t, err)
	for _, e := range entries {
		must(h.t, os.RemoveAll(filepath.Join(h.settings.InstancesPath, e.Name())))
	}
}

func options(guests ...*guest) Options {
	o := Options{Parallel: 1}
	for _, g := range guests {
		o.Selection.Instances = append(o.Selection.Instances, g.uuid)
	}
	return o
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
	s, err := h.engine().PrepareResume(ctx, run)
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
	e := h.engine()
	crashed, ended := make(chan string), make(chan error)
	var mu sync.Mutex
	n := 0
	e.Failpoint = func(point string) {
		mu.Lock()
		n++
		now := n == k
		mu.Unlock()
		if now {
			crashed <- point
			select {}
		}
	}
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

// dropLock takes the lock of runs away from whatever in this process has it.
func (h *host) dropLock() {
	h.t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	must(h.t, err)
	for _, n := range names {
		if link, _ := os.Readlink("/proc/self/fd/" + n.Name()); link == stateDir(h.settings.StateDir).lockFile() {
			fd, _ := strconv.Atoi(n.Name())
			unlock := unix.Flock_t{Type: unix.F_UNLCK}
			must(h.t, unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unlock))
		}
	}
}

// back checks that every file of the instance is at its path with its content.
func (g *guest) back() error {
	for path, want := range g.content {
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if path == g.console {
			if !bytes.HasPrefix(got, want) {
				return fmt.Errorf("%s has other content", path)
			}
			continue
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s has other content", path)
		}
	}
	return nil
}

// serving checks that the instance is in that state on its published files.
func (g *guest) serving(state DomainState) error {
	if err := g.back(); err != nil {
		return err
	}
	d := g.h.hv.get(g.uuid)
	if d.State != state {
		return fmt.Errorf("the domain is %s, not %s", d.State, state)
	}
	if d.frozen {
		return errors.New("the guest's file systems are frozen")
	}
	if state != StateRunning && state != StatePaused {
		return nil
	}
	at, err := os.Stat(g.disk)
	if err != nil {
		return err
	}
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID))
	if err != nil {
		return err
	}
	for _, n := range names {
		if st, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%s", d.PID, n.Name())); err == nil && os.SameFile(st, at) {
			return nil
		}
	}
	return errors.New("its QEMU does not hold the published disk")
}

// asFound checks that the guest goes on in the process that it was in.
func (g *guest) asFound(state DomainState, pid int) error {
	d := g.h.hv.get(g.uuid)
	switch {
	case d.State != state:
		return fmt.Errorf("the domain is %s, and was found %s", d.State, state)
	case d.PID != pid:
		return fmt.Errorf("its QEMU is process %d, and was %d", d.PID, pid)
	case d.frozen:
		return errors.New("the guest's file systems are still frozen")
	}
	return nil
}

// staged returns what is left of staging directories.
func (h *host) staged() []string {
	var left []string
	filepath.WalkDir(filepath.Dir(h.settings.InstancesPath), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), stagePrefix) {
			left = append(left, path)
			entries, _ := os.ReadDir(path)
			for _, e := range entries {
				left = append(left, filepath.Join(path, e.Name()))
			}
			return filepath.SkipDir
		}
		return nil
	})
	return left
}

// pinnedBy returns how many files the keeper holds for an instance.
func (g *guest) pinned() int {
	g.h.t.Helper()
	status, err := g.h.engine().Keeper(g.h.t.Context())
	must(g.h.t, err)
	n := 0
	for _, hold := range status.Holds {
		if slices.Contains(hold.Instances, g.uuid) {
			n++
		}
	}
	return n
}

// outcome returns the report of one instance.
func (g *guest) report(r RunReport) InstanceReport {
	g.h.t.Helper()
	for _, i := range r.Instances {
		if i.UUID == g.uuid {
			return i
		}
	}
	g.h.t.Fatalf("the report does not name %s: %+v", g.uuid, r)
	return InstanceReport{}
}

// scan returns the instance as a scan sees it now.
func (g *guest) scan() Instance {
	g.h.t.Helper()
	r, err := g.h.engine().Scan(g.h.t.Context())
	must(g.h.t, err)
	for _, i := range r.Instances {
		if i.UUID == g.uuid {
			return i
		}
	}
	g.h.t.Fatal("the scan does not have it")
	return Instance{}
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

// fakeHypervisor knows domains whose QEMUs are shells that hold their files.
type fakeHypervisor struct {
	mu      sync.Mutex
	domains map[string]*fakeDomain
	errs    map[string]error // by method: what it returns instead of doing anything
	calls   []string
	before  func(method, uuid string) // called without the lock, before a method does its work
}

type fakeDomain struct {
	Domain
	agent    bool
	frozen   bool
	thawed   int
	counters map[string]BlockCounters
	qemu     *holder
	logd     *holder
}

// holder is a process that holds files.
type holder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

// hold starts a shell under that command name which opens files, the writable ones
// for writing, and waits.
func hold(name string, args []string, files []File, attr *unix.SysProcAttr) (*holder, error) {
	script := ""
	argv := append([]string{}, args...)
	for n, f := range files {
		mode := "<"
		if f.Writable {
			mode = "<>"
		}
		if f.Role == RoleConsoleLog {
			mode = ">>"
		}
		argv = append(argv, f.Path)
		script += fmt.Sprintf(`exec %d%s"${%d}"; `, 3+n, mode, len(argv))
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", script + "echo ready; read x", name}, argv...)...)
	if name == "virtlogd" {
		cmd.Args[2] = "printf virtlogd >/proc/self/comm; " + cmd.Args[2]
	}
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		in.Close()
		cmd.Wait()
		return nil, fmt.Errorf("it could not open its files: %s", stderr.String())
	}
	return &holder{cmd, in}, nil
}

func (h *holder) end() {
	if h == nil {
		return
	}
	h.cmd.Process.Kill()
	h.in.Close()
	h.cmd.Wait()
}

func (v *fakeHypervisor) add(d Domain, agent bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.domains[d.UUID] = &fakeDomain{Domain: d, agent: agent, counters: map[string]BlockCounters{}}
}

// get returns a look at a domain.
func (v *fakeHypervisor) get(uuid string) fakeDomain {
	v.mu.Lock()
	defer v.mu.Unlock()
	return *v.domains[uuid]
}

// change changes a domain.
func (v *fakeHypervisor) change(uuid string, do func(*fakeDomain)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	do(v.domains[uuid])
}

// write is the guest writing: its counters go up.
func (d *fakeDomain) write() {
	c := d.counters["vda"]
	c.WriteRequests++
	c.WriteBytes += 512
	d.counters["vda"] = c
}

// off ends a domain's QEMU, whoever wants it.
func (d *fakeDomain) off() {
	d.qemu.end()
	d.logd.end()
	d.qemu, d.logd = nil, nil
	d.State, d.PauseReason, d.PID, d.frozen = StateShutOff, PauseNone, 0, false
}

func (v *fakeHypervisor) endAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, d := range v.domains {
		d.off()
	}
}

// enter is what every method begins with.
func (v *fakeHypervisor) enter(ctx context.Context, method, uuid string) error {
	if v.before != nil {
		v.before(method, uuid)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if uuid != "" {
		v.calls = append(v.calls, method+" "+uuid)
	}
	if err := v.errs[method]; err != nil {
		return err
	}
	if uuid != "" && v.domains[uuid] == nil {
		return ErrNoDomain
	}
	return nil
}

func (v *fakeHypervisor) called(method, uuid string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, c := range v.calls {
		if c == method+" "+uuid {
			n++
		}
	}
	return n
}

func (v *fakeHypervisor) act(ctx context.Context, method, uuid string, do func(*fakeDomain) error) error {
	if err := v.enter(ctx, method, uuid); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return do(v.domains[uuid])
}

func (v *fakeHypervisor) Version(context.Context) (string, error) { return "a fake", nil }

func (v *fakeHypervisor) Domains(ctx context.Context) ([]Domain, error) {
	if err := v.enter(ctx, "domains", ""); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []Domain
	for _, d := range v.domains {
		list = append(list, d.Domain)
	}
	return list, nil
}

func (v *fakeHypervisor) Domain(ctx context.Context, uuid string) (d Domain, err error) {
	err = v.act(ctx, "domain", uuid, func(f *fakeDomain) error { d = f.Domain; return nil })
	return d, err
}

func (v *fakeHypervisor) XML(ctx context.Context, uuid string) (string, error) {
	return "<domain>" + uuid + "</domain>", v.act(ctx, "xml", uuid, func(*fakeDomain) error { return nil })
}

func (v *fakeHypervisor) Counters(ctx context.Context, uuid string) (c map[string]BlockCounters, err error) {
	err = v.act(ctx, "counters", uuid, func(f *fakeDomain) error {
		if f.qemu == nil {
			return errors.New("domain is not running")
		}
		c = maps.Clone(f.counters)
		return nil
	})
	return c, err
}

func (v *fakeHypervisor) Suspend(ctx context.Context, uuid string) error {
	return v.act(ctx, "suspend", uuid, func(d *fakeDomain) error {
		if d.qemu == nil {
			return errors.New("domain is not running")
		}
		if d.State == StateRunning {
			d.State, d.PauseReason = StatePaused, PauseUser
		}
		return nil
	})
}

func (v *fakeHypervisor) Resume(ctx context.Context, uuid string) error {
	return v.act(ctx, "resume", uuid, func(d *fakeDomain) error {
		if d.qemu == nil {
			return errors.New("domain is not running")
		}
		d.State, d.PauseReason = StateRunning, PauseNone
		return nil
	})
}

func (v *fakeHypervisor) Freeze(ctx context.Context, uuid string, _ time.Duration) error {
	return v.act(ctx, "freeze", uuid, func(d *fakeDomain) error {
		if !d.agent {
			return ErrNoAgent
		}
		if d.qemu == nil {
			return errors.New("domain is not running")
		}
		d.frozen = true
		return nil
	})
}

func (v *fakeHypervisor) Thaw(ctx context.Context, uuid string, _ time.Duration) error {
	return v.act(ctx, "thaw", uuid, func(d *fakeDomain) error {
		if !d.agent {
			return ErrNoAgent
		}
		if d.State != StateRunning && d.qemu != nil {
			return errors.New("the agent of a paused guest does not answer")
		}
		d.frozen = false
		d.thawed++
		return nil
	})
}

func (v *fakeHypervisor) Destroy(ctx context.Context, uuid string) error {
	return v.act(ctx, "destroy", uuid, func(d *fakeDomain) error {
		d.off()
		return nil
	})
}

func (v *fakeHypervisor) Define(_ context.Context, xml string) error {
	uuid := strings.TrimSuffix(strings.TrimPrefix(xml, "<domain>"), "</domain>")
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls = append(v.calls, "define "+uuid)
	if forgotten := v.domains["forgotten "+uuid]; forgotten != nil {
		v.domains[uuid] = forgotten
		delete(v.domains, "forgotten "+uuid)
	}
	return nil
}

// forget is libvirt that knows a domain no more.
func (v *fakeHypervisor) forget(uuid string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.domains[uuid]
	d.off()
	delete(v.domains, uuid)
	// Kept under a name that is nobody's UUID, and with nothing a scan would find.
	v.domains["forgotten "+uuid] = d
}

func (v *fakeHypervisor) Start(ctx context.Context, uuid string, paused bool) error {
	return v.act(ctx, "start", uuid, func(d *fakeDomain) error {
		if d.qemu != nil {
			return nil
		}
		var files, logs []File
		for _, f := range expectedFiles(d.Domain, "/nowhere") {
			switch f.Role {
			case RoleConsoleLog:
				logs = append(logs, f)
			case RoleDiskInfo:
			default:
				files = append(files, f)
			}
		}
		var err error
		if d.qemu, err = hold("qemu", []string{"-uuid", uuid}, files, nil); err != nil {
			d.qemu = nil
			return err
		}
		if len(logs) > 0 {
			if d.logd, err = hold("virtlogd", nil, logs, nil); err != nil {
				return err
			}
		}
		d.PID, d.State, d.PauseReason = d.qemu.cmd.Process.Pid, StateRunning, PauseNone
		if paused {
			d.State, d.PauseReason = StatePaused, PauseUser
		}
		d.counters = map[string]BlockCounters{"vda": {WriteRequests: 1, WriteBytes: 512, HighestOffset: 4096}}
		return nil
	})
}

// ownersAt looks the table up.
func ownersAt(t testing.TB, s Settings) *owners {
	t.Helper()
	root, err := beneath.OpenRoot(s.Root)
	must(t, err)
	t.Cleanup(func() { root.Close() })
	o, err := resolveOwners(s, root)
	must(t, err)
	return o
}
