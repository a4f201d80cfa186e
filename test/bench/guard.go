package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/test/lab"
)

// A host that a guard watches.
const (
	guardGuests      = 24
	quickGuardGuests = 2
	guardCrowd       = 200 // processes with crowdFiles open files each
	quickGuardCrowd  = 20
	guardRest        = 60 * time.Second // for which it is left alone
	quickGuardRest   = 5 * time.Second
)

// guardFigures measures how soon a guard notices a deletion, beside lsof in a loop, and
// its use of CPU and memory while nothing happens.
func guardFigures(o options) []figure {
	guests, crowd, rest := guardGuests, guardCrowd, guardRest
	if o.quick {
		guests, crowd, rest = quickGuardGuests, quickGuardCrowd, quickGuardRest
	}
	w := &watched{}
	return []figure{{
		Name: fmt.Sprintf("guard: a deletion noticed, %d guests, %d other open files", guests, crowd*crowdFiles),
		Goal: within(time.Second),
		setup: func(ctx context.Context, b *bench) (func(), error) {
			return w.Close, w.make(ctx, b.dir, guests, crowd, rest)
		},
		ours: contender{"os-rescue guard", func(ctx context.Context, b *bench) error {
			b.Value("CPU % at rest", w.cpu)
			b.Value("memory MiB", w.memory)
			b.Value("files held", float64(w.files))
			return w.notice(ctx, b, func(context.Context, string) (bool, error) {
				s, err := guard.Ask(ctx, w.settings.StateDir)
				return s.Held.DeletedFiles > w.deleted, err
			})
		}},
		peers: []contender{{"lsof +L1 in a loop", func(ctx context.Context, b *bench) error {
			return w.notice(ctx, b, func(ctx context.Context, path string) (bool, error) {
				out, err := exec.CommandContext(ctx, "lsof", "+L1", "-n", "-P").Output()
				var exit *exec.ExitError
				if errors.As(err, &exit) { // lsof ends so when there is a process that it can't read
					err = nil
				}
				return bytes.Contains(out, []byte(path)), err
			})
		}}},
	}}
}

// watched is a lab with guests, a guard and a crowd.
type watched struct {
	scene
	settings recover.Settings
	dir      string // of the guest that loses a file in each turn
	deleted  int    // how many deleted files the guard held before the turn
	turn     int
	files    int
	cpu      float64 // percent of one processor
	memory   float64 // MiB
}

func (w *watched) make(ctx context.Context, dir string, guests, crowd int, rest time.Duration) error {
	*w = watched{scene: scene{ctx: ctx}, settings: recover.DefaultSettings()}
	var guardian *lab.Process
	err := w.try(func() {
		l := lab.New(w, lab.Options{})
		for range guests {
			i := l.Define(w, lab.Spec{Ephemeral: true, Swap: "qcow2", ConfigDrive: true})
			l.Virsh(w, "start", "--paused", i.Name)
			w.dir = filepath.Dir(i.Disk)
		}
		guardian = l.StartCommand(w, nil, "guard")
		w.Cleanup(func() { guardian.Signal(w, syscall.SIGKILL); <-guardian.Done() })
	})
	if err == nil {
		var end func()
		if end, err = startCrowd(ctx, dir, crowd, crowdFiles); err == nil {
			w.Cleanup(end)
		}
	}
	if err == nil {
		err = w.await(ctx, func(s guard.Status) bool { return !s.Scanned.IsZero() && s.Held.Files >= 5*guests })
	}
	if err == nil {
		err = w.leaveAlone(ctx, guardian.PID(), rest)
	}
	if err != nil {
		w.Close()
	}
	return err
}

// await waits for a status of the guard.
func (w *watched) await(ctx context.Context, ok func(guard.Status) bool) error {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		s, err := guard.Ask(ctx, w.settings.StateDir)
		if err == nil && ok(s) {
			w.files, w.deleted = s.Held.Files, s.Held.DeletedFiles
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || time.Now().After(end) {
			return errors.Join(fmt.Errorf("the guard holds %+v: %v", s.Held, s.Problems), err)
		}
	}
}

// leaveAlone measures the guard's CPU time and memory while nothing happens.
func (w *watched) leaveAlone(ctx context.Context, pid int, rest time.Duration) error {
	before, err := cpuTime(pid)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rest):
	}
	after, err := cpuTime(pid)
	if err != nil {
		return err
	}
	w.cpu = 100 * (after - before).Seconds() / rest.Seconds()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmHWM:" {
			kib, err := strconv.Atoi(fields[1])
			w.memory = float64(kib) / 1024
			return err
		}
	}
	return errors.New("no VmHWM in its status")
}

// cpuTime is the CPU time that a process has used (proc_pid_stat(5)).
func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat: too few fields")
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture in use
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick, errors.Join(err, err2)
}

// notice deletes a file that the guard holds, and measures until it is seen.
func (w *watched) notice(ctx context.Context, b *bench, seen func(ctx context.Context, path string) (bool, error)) error {
	w.turn++
	path := filepath.Join(w.dir, "kernel"+strconv.Itoa(w.turn))
	if err := os.WriteFile(path, []byte("kernel"), 0o600); err != nil {
		return err
	}
	if err := w.await(ctx, func(s guard.Status) bool { return s.Held.DeletedFiles == 0 && s.Held.Files > w.held() }); err != nil {
		return err
	}
	start := time.Now()
	if err := os.Remove(path); err != nil {
		return err
	}
	for {
		ok, err := seen(ctx, path)
		if err != nil {
			return err
		}
		if ok {
			b.Took(time.Since(start))
			return nil
		}
	}
}

// held is the number of files without the one that is deleted in a turn.
func (w *watched) held() int {
	entries, _ := filepath.Glob(lab.InstancesDir + "/*/*")
	entries = slices.DeleteFunc(entries, func(path string) bool {
		return filepath.Base(path) == "disk.info" || strings.HasPrefix(filepath.Base(path), "kernel") || strings.Contains(path, "/locks/")
	})
	return len(entries)
}
