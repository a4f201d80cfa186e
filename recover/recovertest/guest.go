package recovertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// Guest is one instance with the content that its files must have.
type Guest struct {
	H       *Host             // that it is on
	UUID    string            // of its domain
	Dir     string            // InstancesPath/UUID
	Disk    string            // the path of vda
	Base    string            // empty without one
	Console string            // empty without one
	Content map[string][]byte // of every file, by path
}

// GuestOptions say what an instance is like. The zero value runs from one raw disk.
type GuestOptions struct {
	Base    string              // name in _base; made if it is not there
	Console bool                // a console log
	Config  bool                // a config drive
	Agent   bool                // a guest agent that answers
	State   recover.DomainState // StateRunning if empty
	NoNova  bool                // libvirt's alone
}

// UUID is that of the n-th instance.
func UUID(n int) string { return fmt.Sprintf("0b8b7d5e-3a51-4a1c-a0b5-%012x", n) }

// Payload is n bytes of which the third quarter is a hole.
func Payload(seed, n int) []byte {
	rnd := rand.New(rand.NewPCG(uint64(seed), 1)) //nolint:gosec // the same bytes for the same seed
	data := make([]byte, n)
	for i := range data {
		if i < n/2 || i >= n*3/4 {
			data[i] = byte(rnd.Uint32())
		}
	}
	return data
}

// Add makes the files of the n-th instance and starts it, as its State says.
func (h *Host) Add(n int, o GuestOptions) *Guest {
	t := h.T
	t.Helper()
	g := &Guest{H: h, UUID: UUID(n), Content: map[string][]byte{}}
	g.Dir = filepath.Join(h.Settings.InstancesPath, g.UUID)
	g.Disk = filepath.Join(g.Dir, "disk")
	Must(t, os.MkdirAll(g.Dir, 0o755))
	h.HV.Add(g.makeFiles(n, o), o.Agent)
	switch o.State {
	case "", recover.StateRunning:
		Must(t, h.HV.Start(t.Context(), g.UUID, false))
	case recover.StatePaused:
		Must(t, h.HV.Start(t.Context(), g.UUID, true))
	}
	return g
}

// makeFiles makes the instance's files and returns the domain that they are of.
func (g *Guest) makeFiles(n int, o GuestOptions) recover.Domain {
	t := g.H.T
	t.Helper()
	const diskSize, baseSize, configSize = 96 << 10, 64 << 10, 8 << 10
	const baseSeed, configSeed = 1000, 100
	d := recover.Domain{UUID: g.UUID, Name: fmt.Sprintf("instance-%08x", n), State: recover.StateShutOff, Persistent: true,
		Nova: &recover.NovaMetadata{Name: fmt.Sprintf("vm%d", n), ProjectID: "p1", ProjectName: "project"}}
	if o.NoNova {
		d.Nova = nil
	}
	raw := func(path string) recover.Image {
		return recover.Image{Source: recover.SourceFile, Path: path, Format: "raw"}
	}
	chain := []recover.Image{raw(g.Disk)}
	if o.Base != "" {
		g.Base = filepath.Join(g.H.Settings.InstancesPath, "_base", o.Base)
		g.write(g.Base, Payload(baseSeed, baseSize))
		chain = append(chain, raw(g.Base))
	}
	g.write(g.Disk, Payload(n, diskSize))
	d.Disks = append(d.Disks, recover.Disk{Target: "vda", Device: "disk", Chain: chain, ChainKnown: true})
	if o.Config {
		path := filepath.Join(g.Dir, "disk.config")
		g.write(path, Payload(n+configSeed, configSize))
		d.Disks = append(d.Disks, recover.Disk{Target: "hdd", Device: "cdrom", ReadOnly: true, ChainKnown: true,
			Chain: []recover.Image{raw(path)}})
	}
	if o.Console {
		g.Console = filepath.Join(g.Dir, "console.log")
		g.write(g.Console, []byte("login: "))
		d.ConsoleLogs = []string{g.Console}
	}
	if d.Nova != nil {
		info, err := diskInfo(d, g.Dir)
		Must(t, err)
		g.write(filepath.Join(g.Dir, recover.DiskInfoName), info)
	}
	return d
}

// write makes a file, or knows the content of one that is there.
func (g *Guest) write(path string, data []byte) {
	g.H.T.Helper()
	g.Content[path] = data
	if _, err := os.Stat(path); err == nil {
		return
	}
	Must(g.H.T, os.MkdirAll(filepath.Dir(path), 0o755))
	Must(g.H.T, os.WriteFile(path, data, 0o600))
}

// Opened is the guest's disk, for Writes after the file has lost its name.
func (g *Guest) Opened(t testing.TB) *os.File {
	t.Helper()
	f, err := os.OpenFile(g.Disk, os.O_RDWR, 0)
	Must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// Writes is the guest writing to its disk, past its end too. The content that the
// disk must have changes with it; no counter does.
func (g *Guest) Writes(t testing.TB, disk *os.File, off int, data string) {
	t.Helper()
	content := g.Content[g.Disk]
	content = append(content, make([]byte, max(0, off+len(data)-len(content)))...)
	copy(content[off:], data)
	g.Content[g.Disk] = content
	_, err := disk.WriteAt([]byte(data), int64(off))
	Must(t, err)
}

// Destroyed ends the guest's QEMU.
func (g *Guest) Destroyed() {
	g.H.T.Helper()
	Must(g.H.T, g.H.HV.Destroy(context.Background(), g.UUID))
}

// Forgotten ends the guest's QEMU and has the hypervisor forget the domain.
func (g *Guest) Forgotten() {
	g.H.T.Helper()
	g.Destroyed()
	g.H.HV.Forget(g.UUID)
}

// Rm removes the instance's directory.
func (g *Guest) Rm() {
	g.H.T.Helper()
	Must(g.H.T, os.RemoveAll(g.Dir))
}

// Back checks that every file of the instance is at its path with its content.
func (g *Guest) Back() error {
	for path, want := range g.Content {
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		same := bytes.Equal(got, want)
		if path == g.Console { // it goes on
			same = bytes.HasPrefix(got, want)
		}
		if !same {
			return fmt.Errorf("%s has other content", path)
		}
	}
	return nil
}

// Serving checks that the instance is in that state on its published files.
func (g *Guest) Serving(state recover.DomainState) error {
	if err := g.Back(); err != nil {
		return err
	}
	d := g.H.HV.Get(g.UUID)
	if d.State != state {
		return fmt.Errorf("the domain is %s, not %s", d.State, state)
	}
	if d.Frozen {
		return errors.New("the guest's file systems are frozen")
	}
	if state != recover.StateRunning && state != recover.StatePaused {
		return nil
	}
	held, err := holds(d.PID, g.Disk)
	if err != nil {
		return err
	}
	if !held {
		return errors.New("its QEMU does not hold the published disk")
	}
	return nil
}

// holds is true when a process has the file open that is at a path.
func holds(pid int, path string) (bool, error) {
	at, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(names, func(n os.DirEntry) bool {
		st, err := os.Stat(filepath.Join(dir, n.Name()))
		return err == nil && os.SameFile(st, at)
	}), nil
}

// AsFound checks that the guest goes on in the process that it was in.
func (g *Guest) AsFound(state recover.DomainState, pid int) error {
	d := g.H.HV.Get(g.UUID)
	switch {
	case d.State != state:
		return fmt.Errorf("the domain is %s, and was found %s", d.State, state)
	case d.PID != pid:
		return fmt.Errorf("its QEMU is process %d, and was %d", d.PID, pid)
	case d.Frozen:
		return errors.New("the guest's file systems are still frozen")
	}
	return nil
}

// Pinned returns how many files the keeper holds for the instance.
func (g *Guest) Pinned() int {
	t := g.H.T
	t.Helper()
	c, err := keeper.Connect(t.Context(), g.H.Settings.StateDir)
	if errors.Is(err, keeper.ErrNoKeeper) {
		return 0
	}
	Must(t, err)
	defer c.Close()
	all, err := c.List(t.Context())
	Must(t, err)
	n := 0
	for _, hold := range all {
		if slices.Contains(hold.Owners, g.UUID) {
			n++
		}
	}
	return n
}

// Report returns what a run's report says of the instance.
func (g *Guest) Report(r recover.RunReport) recover.InstanceReport {
	g.H.T.Helper()
	for _, i := range r.Instances {
		if i.UUID == g.UUID {
			return i
		}
	}
	g.H.T.Fatalf("the report does not name %s: %+v", g.UUID, r)
	return recover.InstanceReport{}
}

// Options are those of a run of these instances, one at a time.
func Options(guests ...*Guest) recover.Options {
	o := recover.Options{Parallel: 1}
	for _, g := range guests {
		o.Selection.Instances = append(o.Selection.Instances, g.UUID)
	}
	return o
}

// OfflineOptions are Options of a run that never asks Nova.
func OfflineOptions(guests ...*Guest) recover.Options {
	o := Options(guests...)
	o.Offline = true
	return o
}

// Scanned is a scan of instances with those verdicts and no files, named by their
// number from 0.
func Scanned(verdicts ...recover.Verdict) recover.Report {
	r := recover.Report{Host: "node", Taken: time.Now()}
	for n, v := range verdicts {
		i := recover.Instance{UUID: UUID(n), Domain: fmt.Sprintf("instance-%d", n), Name: fmt.Sprintf("web-%d", n), Verdict: v}
		r.Instances = append(r.Instances, i)
	}
	return r
}
