package guard_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// planted is how many files Nova's user makes in the tests: FLOOD=25000 in `make flood`.
func planted(t *testing.T) int {
	t.Helper()
	text := os.Getenv("FLOOD")
	if text == "" {
		return 4500
	}
	n, err := strconv.Atoi(text)
	recovertest.Must(t, err)
	return n
}

// inTime is how soon a new instance is held, and a status answers, whatever stands in the tree.
// 2 s are the promise, which `make flood` measures on a machine that does nothing else.
func inTime() time.Duration {
	if os.Getenv("FLOOD") != "" {
		return patience.Of(2 * time.Second)
	}
	return patience.Of(30 * time.Second)
}

// fewDescriptors has the guards of a test hold less than the planted files.
func fewDescriptors(t *testing.T) {
	t.Helper()
	const descriptors = 16 << 10
	var limit unix.Rlimit
	recovertest.Must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	few := unix.Rlimit{Cur: min(limit.Cur, descriptors), Max: limit.Max}
	recovertest.Must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	t.Cleanup(func() { recovertest.Must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) })
}

// strangers makes directories that are called like instances', with a file in each.
func strangers(t *testing.T, dir string, n int) {
	for range n {
		d := filepath.Join(dir, uuid.NewString())
		recovertest.Must(t, os.Mkdir(d, 0o755))
		recovertest.Must(t, os.WriteFile(filepath.Join(d, "x"), nil, 0o644))
	}
}

// files makes files in one directory.
func files(t *testing.T, dir string, n int) {
	recovertest.Must(t, os.MkdirAll(dir, 0o755))
	for n := range n {
		recovertest.Must(t, os.WriteFile(filepath.Join(dir, strings.Repeat("a", 200)+strconv.Itoa(n)), nil, 0o644))
	}
}

// What Nova's user makes in the instances directory takes no descriptor from a new instance, on
// or off, with a file among a thousand others that nobody names.
func TestANewInstanceIsHeldWhateverIsPlanted(t *testing.T) {
	fewDescriptors(t)
	for name, plant := range map[string]func(t *testing.T, h *runtest.Host, n int){
		"in a directory": func(t *testing.T, h *runtest.Host, n int) {
			files(t, filepath.Join(h.Settings.InstancesPath, uuid.NewString()), n)
		},
		"in _base": func(t *testing.T, h *runtest.Host, n int) {
			files(t, filepath.Join(h.Settings.InstancesPath, "_base"), n)
		},
		"in its directory": func(t *testing.T, h *runtest.Host, n int) {
			files(t, filepath.Join(h.Settings.InstancesPath, recovertest.UUID(2)), n)
		},
		"in many": func(t *testing.T, h *runtest.Host, n int) { strangers(t, h.Settings.InstancesPath, n) },
		"in many of another": func(t *testing.T, h *runtest.Host, n int) {
			d := filepath.Join(h.Settings.InstancesPath, recovertest.UUID(1))
			for n := range n / 10 {
				recovertest.Must(t, os.MkdirAll(filepath.Join(d, strconv.Itoa(n), "a/b/c/d/e"), 0o755))
			}
			files(t, filepath.Join(d, "0/a"), n)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			h.Add(1, recovertest.GuestOptions{Base: "b1", Console: true})
			g := startGuard(h, guard.Options{Interval: time.Hour}, nil, nil)
			g.awaitScan()
			plant(t, h, planted(t))
			g.await("the flood is seen", func(s guard.Status) bool { return s.Held.NotHeld > 0 })
			for _, guest := range []*recovertest.Guest{
				h.Add(2, recovertest.GuestOptions{Base: "b2"}), h.Add(3, recovertest.GuestOptions{State: recover.StateShutOff}),
			} {
				added := time.Now()
				g.await("the instance is held", func(guard.Status) bool { _, is := g.paths()[guest.Disk]; return is })
				if took := time.Since(added); took > inTime() {
					t.Errorf("it took %s", took)
				}
			}
			s := g.await("its base is held", func(guard.Status) bool {
				_, is := g.paths()[filepath.Join(h.Settings.InstancesPath, "_base/b2")]
				return is
			})
			isSaid := func(p string) bool { return strings.Contains(p, "libvirt names none of them") }
			// Of a big host there may be many directories: that alone is none.
			if s.Held.Files > 4200 || slices.ContainsFunc(s.Problems, isSaid) != (name != "in many") {
				t.Errorf("it holds %d files, and says %q", s.Held.Files, s.Problems)
			}
			if n := strings.Count(g.log.String(), "there are more files than are held"); n != 1 {
				t.Errorf("it is logged %d times", n)
			}
		})
	}
}

// An instance that loses a thousand files is one incident, which a status tells in time, with the
// files that matter first.
func TestAnIncidentOfThousandsOfFilesIsToldInTime(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{Base: "b1"})
	h.Add(2, recovertest.GuestOptions{})
	g := startGuard(h, guard.Options{Interval: time.Hour}, nil, nil)
	g.awaitScan()
	files(t, v.Dir, 1500)
	g.await("the flood is seen", func(s guard.Status) bool { return s.Held.NotHeld > 0 })
	h.Purge()
	deleted := time.Now()
	s := g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 2 && s.Incidents[0].Files() > 100 })
	if took := time.Since(deleted); took > inTime() {
		t.Errorf("it took %s", took)
	}
	if i := s.Incidents[0]; i.More == 0 || !slices.Contains(i.Paths, v.Disk) {
		t.Errorf("it names %d files, %d more, the disk among them: %t", len(i.Paths), i.More, slices.Contains(i.Paths, v.Disk))
	}
	asked := time.Now()
	if _, err := guard.Ask(t.Context(), h.Settings.StateDir); err != nil || time.Since(asked) > inTime() {
		t.Errorf("a status took %s: %v", time.Since(asked), err)
	}
	if r, err := h.ScanAll(t.Context()); err != nil || r.Instances[0].Verdict != recover.VerdictRecoverable {
		t.Errorf("a scan says %+v, %v", r.Instances[0].Verdict, err)
	}
}

// A directory that grows while it is read, and names that come and go, keep the guard busy and
// nobody waiting.
func TestAStormOfNamesDelaysNothing(t *testing.T) {
	h := runtest.NewHost(t)
	h.Add(1, recovertest.GuestOptions{})
	g := startGuard(h, guard.Options{Interval: time.Hour}, nil, nil)
	g.awaitScan()
	ctx, stop := context.WithCancel(t.Context())
	var storm sync.WaitGroup
	dir := filepath.Join(h.Settings.InstancesPath, uuid.NewString())
	recovertest.Must(t, os.Mkdir(dir, 0o755))
	storm.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			path := filepath.Join(dir, fmt.Sprint(n))
			_ = os.WriteFile(path, nil, 0o644)
			if n%2 == 0 {
				_ = os.Rename(path, path+"x")
			}
			if n > planted(t) {
				_ = os.Remove(filepath.Join(dir, fmt.Sprint(n-planted(t))))
			}
		}
	})
	defer storm.Wait()
	defer stop()
	for n := 2; n < 5; n++ {
		guest := h.Add(n, recovertest.GuestOptions{})
		added := time.Now()
		g.await("the instance is held", func(guard.Status) bool { _, is := g.paths()[guest.Disk]; return is })
		if took := time.Since(added); took > inTime() {
			t.Errorf("it took %s", took)
		}
	}
}
