package recover

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// fakeHypervisor knows domains whose QEMUs are shells that hold their files.
type fakeHypervisor struct {
	mu      sync.Mutex
	domains map[string]*fakeDomain
	gone    map[string]*fakeDomain // what it has forgotten, for Define
	errs    map[string]error       // by method: what it returns instead of doing anything
	calls   []string
	support MirrorSupport
	before  func(method, uuid string) // called without the lock, before a method does its work
	events  chan string               // what Events tells; nil tells nothing
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
	if v.before != nil && uuid != "" {
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

// Events tells what is sent to v.events, until ctx ends.
func (v *fakeHypervisor) Events(ctx context.Context) (<-chan string, error) {
	if err := v.enter(ctx, "events", ""); err != nil {
		return nil, err
	}
	out := make(chan string)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case uuid := <-v.events:
				select {
				case <-ctx.Done():
					return
				case out <- uuid:
				}
			}
		}
	}()
	return out, nil
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
	if d := v.gone[uuid]; d != nil {
		v.domains[uuid] = d
		delete(v.gone, uuid)
	}
	return nil
}

// lookup returns a look at a domain, if libvirt knows it.
func (v *fakeHypervisor) lookup(uuid string) (Domain, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.domains[uuid]
	if d == nil {
		return Domain{}, false
	}
	return d.Domain, true
}

// define is libvirt that gets to know again what it has forgotten.
func (v *fakeHypervisor) define(uuid string) Domain {
	v.mu.Lock()
	defer v.mu.Unlock()
	if d := v.gone[uuid]; d != nil {
		v.domains[uuid] = d
		delete(v.gone, uuid)
	}
	return v.domains[uuid].Domain
}

// forget is libvirt that knows a domain no more.
func (v *fakeHypervisor) forget(uuid string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.domains[uuid]
	d.off()
	delete(v.domains, uuid)
	v.gone[uuid] = d
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
		if d.qemu, err = hold("qemu", []string{"-uuid", uuid, "-blockdev", "{}"}, files, nil); err != nil {
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

// errNoMirrors: what is claimed of mirrors is shown on QEMU.
var errNoMirrors = errors.New("the fake hypervisor has no mirrors")

func (v *fakeHypervisor) MirrorSupport(ctx context.Context) (MirrorSupport, error) {
	return v.support, v.enter(ctx, "MirrorSupport", "")
}

func (v *fakeHypervisor) Mirror(context.Context, string, MirrorRequest) error { return errNoMirrors }

func (v *fakeHypervisor) MirrorState(context.Context, string, string) (MirrorState, error) {
	return MirrorState{}, errNoMirrors
}

func (v *fakeHypervisor) Pivot(context.Context, string, string) error { return errNoMirrors }

func (v *fakeHypervisor) EndMirror(context.Context, string, string) error { return errNoMirrors }

func (v *fakeHypervisor) Export(context.Context, string, []ExportDisk) (string, error) {
	return "", errNoMirrors
}

func (v *fakeHypervisor) EndExport(context.Context, string) error { return errNoMirrors }
