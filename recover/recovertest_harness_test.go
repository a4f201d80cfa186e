package recover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// TestMain lets the test binary be a keeper.
func TestMain(m *testing.M) {
	if os.Getenv("RECOVER_TEST") == "keeper" {
		// It must not outlive tests that were killed.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		if err := keeper.Serve(ctx, keeper.Options{Dir: os.Getenv("RECOVER_DIR"), Idle: 2 * time.Second}); err != nil {
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

// testGuest is one instance with the content that its files must have.
type testGuest struct {
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
func (h *host) add(n int, o guestOptions) *testGuest {
	t := h.t
	t.Helper()
	g := &testGuest{h: h, uuid: testUUID(n), content: map[string][]byte{}}
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

func options(guests ...*testGuest) Options {
	o := Options{Parallel: 1}
	for _, g := range guests {
		o.Selection.Instances = append(o.Selection.Instances, g.uuid)
	}
	return o
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
func (g *testGuest) back() error {
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
func (g *testGuest) serving(state DomainState) error {
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
func (g *testGuest) asFound(state DomainState, pid int) error {
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
func (g *testGuest) pinned() int {
	g.h.t.Helper()
	status, err := keeperStatus(g.h.t.Context(), g.h.settings.StateDir)
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
func (g *testGuest) report(r RunReport) InstanceReport {
	g.h.t.Helper()
	for _, i := range r.Instances {
		if i.UUID == g.uuid {
			return i
		}
	}
	g.h.t.Fatalf("the report does not name %s: %+v", g.uuid, r)
	return InstanceReport{}
}
