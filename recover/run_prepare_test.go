package recover

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// The journal's own file system is full: the worst moment for a guest to be
// suspended, and often the same disk.
func TestAGuestIsLetGoOnThoughTheJournalIsFull(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{agent: true})
	pid := h.hv.get(g.uuid).PID
	h.purge()
	s, err := h.engine().Prepare(t.Context(), CommandRescue, options(g))
	must(t, err)
	defer s.Close()
	h.hv.before = func(method, _ string) {
		if method == "suspend" {
			breakJournal(t) // from here on no record can be written
		}
	}
	if _, err := s.Execute(t.Context()); err == nil {
		t.Error("a run without a journal is no error")
	}
	must(t, g.asFound(StateRunning, pid))
	if d := h.hv.get(g.uuid); d.thawed == 0 {
		t.Error("it was not thawed")
	}
	if left := h.staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPrepareLeavesNoTraceWhenItFails(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.purge()
	for name, c := range map[string]struct {
		change func(*host)
		o      Options
		want   error
	}{
		"a user of the owner table is missing": {func(h *host) { h.settings.Owners.Disk.User = "no-such-user" }, options(g), ErrUnusable},
		"nothing is selected":                  {func(*host) {}, Options{}, ErrUsage},
		"a selected instance is not here": {func(*host) {}, Options{Selection: Selection{Instances: []string{testUUID(9)}}},
			ErrNothingSelected},
		"no such project":                {func(*host) {}, Options{Selection: Selection{Project: "p2"}}, ErrNothingSelected},
		"the hypervisor does not answer": {func(h *host) { h.hv.errs["domains"] = ErrUnavailable }, options(g), ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			other := *h
			c.change(&other)
			s, err := other.engine().Prepare(t.Context(), CommandRescue, c.o)
			h.hv.errs = map[string]error{}
			if s != nil || !errors.Is(err, c.want) {
				t.Fatalf("%v", err)
			}
			if ids, _ := stateDir(h.settings.StateDir).list(); len(ids) > 0 {
				t.Errorf("left behind: %v", ids)
			}
			if n := g.pinned(); n != 0 {
				t.Errorf("%d pins left behind", n)
			}
		})
	}
}

func TestADryRunTouchesNothing(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b"})
	h.purge()
	plan, err := h.engine().DryRun(context.Background(), CommandRescue, options(g))
	must(t, err)
	if len(plan.Instances) != 1 || plan.Instances[0].Action != ActionReboot || len(plan.Instances[0].Steps) == 0 {
		t.Errorf("%+v", plan.Instances)
	}
	for _, dir := range []string{h.settings.StateDir, h.settings.InstancesPath} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("%s: %v %v", dir, entries, err)
		}
	}
}

// breakJournal makes the journal that this process writes one that can't be written.
func breakJournal(t *testing.T) {
	t.Helper()
	readOnly, err := os.Open(os.DevNull)
	must(t, err)
	defer readOnly.Close()
	names, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	broken := 0
	for _, n := range names {
		if link, _ := os.Readlink("/proc/self/fd/" + n.Name()); filepath.Base(link) == journalName {
			fd, err := strconv.Atoi(n.Name())
			must(t, err)
			must(t, unix.Dup3(int(readOnly.Fd()), fd, unix.O_CLOEXEC))
			broken++
		}
	}
	if broken != 1 {
		t.Fatalf("%d journals are open", broken)
	}
}
