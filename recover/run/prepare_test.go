package run_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// The journal's own file system is full: the worst moment for a guest to be
// suspended, and often the same disk.
func TestAGuestIsLetGoOnThoughTheJournalIsFull(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Agent: true})
	pid := h.HV.Get(g.UUID).PID
	h.Purge()
	s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	defer s.Close()
	h.HV.Before = func(method, _ string) {
		if method == "suspend" {
			breakJournal(t) // from here on no record can be written
		}
	}
	if _, err := s.Execute(t.Context()); err == nil {
		t.Error("a run without a journal is no error")
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
	if d := h.HV.Get(g.UUID); d.Thawed == 0 {
		t.Error("it was not thawed")
	}
	if left := h.Staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPrepareLeavesNoTraceWhenItFails(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Purge()
	for name, c := range map[string]struct {
		change func(*runtest.Host)
		o      recover.Options
		want   error
	}{
		"a user of the owner table is missing": {
			func(h *runtest.Host) { h.Settings.Owners.Disk.User = "no-such-user" },
			recovertest.Options(g),
			recover.ErrUnusable,
		},
		"nothing is selected": {func(*runtest.Host) {}, recover.Options{}, recover.ErrUsage},
		"a selected instance is not here": {
			func(*runtest.Host) {},
			recover.Options{Selection: recover.Selection{Instances: []string{recovertest.UUID(9)}}},
			recover.ErrNothingSelected,
		},
		"no such project": {
			func(*runtest.Host) {},
			recover.Options{Selection: recover.Selection{Project: "p2"}},
			recover.ErrNothingSelected,
		},
		"the hypervisor does not answer": {
			func(h *runtest.Host) { h.HV.Errs["domains"] = recover.ErrUnavailable },
			recovertest.Options(g),
			recover.ErrUnavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			host := *h.Host
			other := runtest.Host{Host: &host}
			c.change(&other)
			s, err := other.Engine().Prepare(t.Context(), recover.CommandRescue, c.o)
			h.HV.Errs = map[string]error{}
			if s != nil || !errors.Is(err, c.want) {
				t.Fatalf("%v", err)
			}
			if ids, _ := statedir.Dir(h.Settings.StateDir).List(); len(ids) > 0 {
				t.Errorf("left behind: %v", ids)
			}
			if n := g.Pinned(); n != 0 {
				t.Errorf("%d pins left behind", n)
			}
		})
	}
}

func TestADryRunTouchesNothing(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	plan, err := h.Engine().DryRun(context.Background(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if len(plan.Instances) != 1 || plan.Instances[0].Action != recover.ActionReboot || len(plan.Instances[0].Steps) == 0 {
		t.Errorf("%+v", plan.Instances)
	}
	for _, dir := range []string{h.Settings.StateDir, h.Settings.InstancesPath} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("%s: %v %v", dir, entries, err)
		}
	}
}

// breakJournal makes the journal that this process writes one that can't be written.
func breakJournal(t *testing.T) {
	t.Helper()
	readOnly, err := os.Open(os.DevNull)
	recovertest.Must(t, err)
	defer readOnly.Close()
	names, err := os.ReadDir("/proc/self/fd")
	recovertest.Must(t, err)
	broken := 0
	for _, n := range names {
		if link, _ := os.Readlink("/proc/self/fd/" + n.Name()); filepath.Base(link) == journal.FileName {
			fd, err := strconv.Atoi(n.Name())
			recovertest.Must(t, err)
			recovertest.Must(t, unix.Dup3(int(readOnly.Fd()), fd, unix.O_CLOEXEC))
			broken++
		}
	}
	if broken != 1 {
		t.Fatalf("%d journals are open", broken)
	}
}
