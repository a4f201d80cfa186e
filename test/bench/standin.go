package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// standIn replaces libvirt for hundreds of instances: its QEMUs are shells that hold an
// instance's files open, and no guest runs. Figures on it measure os-rescue's own work,
// never a hypervisor's.
type standIn struct {
	recover.Mirrors      // not implemented: mode live is not used
	recover.DomainEvents // not implemented: no guard is used

	instances string // the directory
	base      string
	input     *os.File // the shells' standard input, a pipe
	last      *os.File // the pipe's other end; the shells end when it is closed

	mu      sync.Mutex
	domains map[string]*standInDomain
}

type standInDomain struct {
	recover.Domain
	qemu *exec.Cmd
}

// newStandIn makes the directory and the backing file that its instances share.
func newStandIn(ctx context.Context, instances string) (*standIn, error) {
	s := &standIn{
		instances: instances,
		base:      filepath.Join(instances, "_base", "0f4ac6ba1f4a8ed0a2f0b8d0a0b1c2d3e4f50617"),
		domains:   map[string]*standInDomain{},
	}
	if err := os.MkdirAll(filepath.Dir(s.base), 0o755); err != nil {
		return nil, err
	}
	var err error
	if s.input, s.last, err = os.Pipe(); err != nil {
		return nil, err
	}
	// The template of the disks lies beside the tree, which is deleted.
	for _, args := range [][]string{
		{"create", "-q", "-f", "raw", s.base, "16M"},
		{"create", "-q", "-f", "qcow2", "-F", "raw", "-b", s.base, s.template()},
	} {
		if err := command(ctx, "qemu-img", args...); err != nil {
			return nil, err
		}
	}
	return s, command(ctx, "qemu-io", "-c", "write -P 7 0 256k", "-c", "write -P 9 8M 256k", s.template())
}

func (s *standIn) template() string { return s.instances + ".qcow2" }

// Close ends every QEMU.
func (s *standIn) Close() {
	s.last.Close()
	for _, d := range s.domains {
		if d.qemu != nil {
			_ = d.qemu.Wait()
		}
	}
	s.input.Close()
}

// add makes an instance and starts it.
func (s *standIn) add(ctx context.Context, uuid, name, project string) error {
	dir := filepath.Join(s.instances, uuid)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	disk := filepath.Join(dir, "disk")
	template, err := os.ReadFile(s.template())
	if err == nil {
		err = os.WriteFile(disk, template, 0o600)
	}
	if err == nil {
		if _, serr := os.Stat(s.base); serr != nil { // deleted with the others of its run
			err = os.MkdirAll(filepath.Dir(s.base), 0o755)
			err = errors.Join(err, command(ctx, "qemu-img", "create", "-q", "-f", "raw", s.base, "16M"))
		}
	}
	if err != nil {
		return err
	}
	s.domains[uuid] = &standInDomain{Domain: recover.Domain{
		UUID: uuid, Name: name, State: recover.StateShutOff, Persistent: true,
		Nova: &recover.NovaMetadata{Name: name, ProjectID: project, ProjectName: "bench"},
		Disks: []recover.Disk{{Target: "vda", Device: "disk", ChainKnown: true, Chain: []recover.Image{
			{Source: recover.SourceFile, Path: disk, Format: "qcow2"}, {Source: recover.SourceFile, Path: s.base, Format: "raw"}}}},
	}}
	return s.Start(ctx, uuid, false)
}

// deleteTree removes every file of every instance, as the accident does.
func (s *standIn) deleteTree() error {
	entries, err := os.ReadDir(s.instances)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.instances, e.Name())))
	}
	return err
}

// Version names the stand-in.
func (s *standIn) Version(context.Context) (string, error) { return "a stand-in", nil }

// Domains returns every domain.
func (s *standIn) Domains(context.Context) ([]recover.Domain, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []recover.Domain
	for _, d := range s.domains {
		all = append(all, d.Domain)
	}
	return all, nil
}

// Domain returns one domain; recover.ErrNoDomain.
func (s *standIn) Domain(_ context.Context, uuid string) (d recover.Domain, err error) {
	err = s.act(uuid, func(found *standInDomain) error { d = found.Domain; return nil })
	return d, err
}

func (s *standIn) act(uuid string, do func(*standInDomain) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.domains[uuid]
	if d == nil {
		return recover.ErrNoDomain
	}
	return do(d)
}

// XML returns a document for Define.
func (s *standIn) XML(context.Context, string) (string, error) { return "<domain/>", nil }

// StartNeeds is nothing.
func (s *standIn) StartNeeds(context.Context, string) (recover.StartNeeds, error) {
	return recover.StartNeeds{}, nil
}

// Counters never move: nobody writes.
func (s *standIn) Counters(context.Context, string) (map[string]recover.BlockCounters, error) {
	return map[string]recover.BlockCounters{"vda": {}}, nil
}

// Suspend notes that the domain is paused.
func (s *standIn) Suspend(_ context.Context, uuid string) error {
	return s.act(uuid, func(d *standInDomain) error {
		d.State, d.PauseReason = recover.StatePaused, recover.PauseUser
		return nil
	})
}

// Resume notes that the domain runs.
func (s *standIn) Resume(_ context.Context, uuid string) error {
	return s.act(uuid, func(d *standInDomain) error {
		d.State, d.PauseReason = recover.StateRunning, recover.PauseNone
		return nil
	})
}

// Freeze finds no agent.
func (s *standIn) Freeze(context.Context, string, time.Duration) error { return recover.ErrNoAgent }

// Thaw has nothing to do.
func (s *standIn) Thaw(context.Context, string, time.Duration) error { return nil }

// Destroy ends the domain's QEMU.
func (s *standIn) Destroy(_ context.Context, uuid string) error {
	return s.act(uuid, func(d *standInDomain) error {
		if d.qemu == nil {
			return nil
		}
		_ = d.qemu.Process.Kill()
		_ = d.qemu.Wait()
		d.qemu, d.PID, d.State, d.PauseReason = nil, 0, recover.StateShutOff, recover.PauseNone
		return nil
	})
}

// Define has nothing to do: it forgets no domain.
func (s *standIn) Define(context.Context, string) error { return nil }

// Start starts the domain's QEMU and returns when that has its files open.
func (s *standIn) Start(_ context.Context, uuid string, paused bool) error {
	return s.act(uuid, func(d *standInDomain) error {
		if d.qemu != nil {
			return nil
		}
		disk := d.Disks[0].Chain[0].Path
		script := `exec 3<>"$3" 4<"$4"; echo ready; read x`
		//nolint:noctx // it ends with the stand-in
		qemu := exec.Command("/bin/sh", "-c", script, "qemu", "-uuid", uuid, disk, s.base)
		qemu.Stdin = s.input
		out, err := qemu.StdoutPipe()
		if err == nil {
			err = qemu.Start()
		}
		if err != nil {
			return err
		}
		if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			return fmt.Errorf("the QEMU of %s could not open %s", uuid, disk)
		}
		out.Close()
		d.qemu, d.PID, d.State, d.PauseReason = qemu, qemu.Process.Pid, recover.StateRunning, recover.PauseNone
		if paused {
			d.State, d.PauseReason = recover.StatePaused, recover.PauseUser
		}
		return nil
	})
}
