package recover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// crashes goes through every journal point of a rescue, from the first one of that
// name on. after says what becomes
// of the host between the crash and the resume; state is how the guest must end
// if it was not destroyed before the crash.
func crashes(
	t *testing.T, from string, o func(*host, *testGuest) Options, add guestOptions, after func(*host, *testGuest), state DomainState,
) {
	t.Helper()
	first := newHost(t)
	add.base = "b"
	for k := crashPoint(t, first, CommandRescue, func(g *testGuest) Options { return o(g.h, g) }, add, from, ""); ; k++ {
		h := first.elsewhere(t)
		add.base = fmt.Sprint("b", k) // inode numbers are used again: let no path be
		g := h.add(k, add)
		found := h.hv.get(g.uuid).State
		h.purge()
		run, point := h.crashAt(CommandRescue, o(h, g), k)
		if run == "" {
			if k < 20 {
				t.Fatalf("only %d journal points", k)
			}
			return
		}
		where := fmt.Sprintf("%d %s", k, point)
		said := points(h.records(run))
		destroyed := slices.Contains(said, "destroy.begin")
		if after != nil {
			after(h, g)
		}
		if point == "run.done" {
			if _, err := h.resume(t.Context(), run); !errors.Is(err, ErrNoRun) {
				t.Errorf("%s: a finished run was resumed: %v", where, err)
			}
			continue
		}
		report, err := h.resume(t.Context(), run)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		r := g.report(report)
		if r.Outcome != OutcomeRescued && r.Outcome != OutcomeIntact {
			t.Errorf("%s: %+v", where, r)
		}
		want := state
		if destroyed || state == "" {
			want = found
		}
		if destroyed && h.hv.get(g.uuid).State == StateShutOff && after != nil && h.hv.called("start", g.uuid) > 1 {
			want = StateShutOff // started again before the crash, and ended since
		}
		if err := g.serving(want); err != nil {
			t.Errorf("%s: %v", where, err)
		}
		if left := h.staged(); len(left) > 0 {
			t.Errorf("%s: left behind: %v", where, left)
		}
		if n := g.pinned(); n != 0 {
			t.Errorf("%s: the keeper still holds %d files", where, n)
		}
		if status, err := h.runs().find(run); err != nil || status.State != RunFinished {
			t.Errorf("%s: the run is %s, %v", where, status.State, err)
		}
		h.hv.endAll()
	}
}

func plain(_ *host, g *testGuest) Options { return options(g) }

func TestResumeAfterKill9AtEveryJournalPointBringsTheInstanceBack(t *testing.T) {
	t.Parallel()
	crashes(t, "run.begin", plain, guestOptions{console: true, agent: true}, nil, "")
}

func TestResumeAfterKill9AndTheGuestsOwnEndBringsItsFilesBack(t *testing.T) {
	t.Parallel()
	crashes(t, "pin.done", plain, guestOptions{console: true, agent: true}, func(h *host, g *testGuest) {
		h.hv.change(g.uuid, (*fakeDomain).off)
	}, StateShutOff)
}

func TestResumeAfterKill9WithABackupDirectoryBringsTheInstanceBack(t *testing.T) {
	t.Parallel()
	crashes(t, "backup.begin", func(h *host, g *testGuest) Options {
		o := options(g)
		o.BackupDir = filepath.Join(filepath.Dir(h.settings.InstancesPath), "backup")
		return o
	}, guestOptions{}, nil, "")
}

// Only what is on the disk is left: the staged copy, proven or not.
func TestResumeAfterAPowerCutNeverRemovesTheOnlyCopy(t *testing.T) {
	t.Parallel()
	first := newHost(t)
	for k := crashPoint(t, first, CommandRescue, func(g *testGuest) Options { return options(g) }, guestOptions{base: "b"},
		"instance.begin", ""); ; k++ {
		h := first.elsewhere(t)
		g := h.add(k, guestOptions{base: fmt.Sprint("b", k)})
		h.purge()
		run, point := h.crashAt(CommandRescue, options(g), k)
		if run == "" {
			return
		}
		where := fmt.Sprintf("%d %s", k, point)
		h.hv.change(g.uuid, (*fakeDomain).off)
		h.killKeeper()
		copies := func() int {
			n := 0
			filepath.WalkDir(h.settings.InstancesPath, func(path string, _ os.DirEntry, _ error) error {
				if data, err := os.ReadFile(path); err == nil && string(data) == string(g.content[g.disk]) {
					n++
				}
				return nil
			})
			return n
		}
		before := copies()
		report, err := h.resume(t.Context(), run)
		if before > 0 && copies() == 0 {
			t.Errorf("%s: the only copy of the disk was removed (%+v, %v)", where, report.Instances, err)
		}
		if before == 0 && err == nil && len(report.Instances) > 0 {
			if r := g.report(report); strings.Contains(r.Error, "No data is lost") {
				t.Errorf("%s: the data is gone, and it says: %s", where, r.Error)
			}
		}
		// Where the copy was proven, the instance comes back.
		proven := false
		for _, r := range h.records(run) {
			var rec stagedRecord
			if r.Point() == "copy.done" && r.Path == g.disk && json.Unmarshal(r.Data, &rec) == nil && rec.Proven {
				proven = true
			}
		}
		if proven && point != "run.done" {
			if err != nil {
				t.Errorf("%s: %v", where, err)
			} else if err := g.back(); err != nil {
				t.Errorf("%s: %v (%s)", where, err, g.report(report).Error)
			}
		}
		h.hv.endAll()
	}
}

// Two instances share a base, which is restored once, by either; both finish.
func TestResumeOfInstancesThatShareABaseNeedsNobodyWhoHoldsItOnceItIsPublished(t *testing.T) {
	h := newHost(t)
	a, b := h.add(1, guestOptions{base: "shared"}), h.add(2, guestOptions{base: "shared"})
	h.purge()
	destroys := 0
	// The second destroy.done of a run with one instance at a time.
	e := h.engine()
	crashed := make(chan struct{})
	e.Failpoint = func(point string) {
		if point == "destroy.done" {
			if destroys++; destroys == 2 {
				close(crashed)
				select {}
			}
		}
	}
	go func() {
		s, err := e.Prepare(context.Background(), CommandRescue, options(a, b))
		if err == nil {
			s.Execute(context.Background())
		}
	}()
	<-crashed
	info, _ := stateDir(h.settings.StateDir).running()
	h.dropLock()
	h.killKeeper()
	// The first to finish has let the base's old inode go: a new QEMU has the new one.
	report, err := h.resume(t.Context(), info.Run)
	must(t, err)
	for _, g := range []*testGuest{a, b} {
		if r := g.report(report); r.Outcome != OutcomeRescued {
			t.Errorf("%+v", r)
		}
		if err := g.serving(StateRunning); err != nil {
			t.Error(err)
		}
	}
}

func TestAResumeThatFailsIsNotSettledWhileTheGuestIsStillPaused(t *testing.T) {
	for name, breakIt := range map[string]func(*host) context.Context{
		"because it is interrupted at once": func(h *host) context.Context {
			ctx, cancel := context.WithCancel(h.t.Context())
			cancel()
			return ctx
		},
		"because the hypervisor does not answer": func(h *host) context.Context {
			h.hv.errs["domain"] = ErrUnavailable
			return h.t.Context()
		},
		"because the guest can't be resumed": func(h *host) context.Context {
			h.hv.errs["resume"] = errors.New("no answer from the monitor")
			return h.t.Context()
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			k := crashPoint(t, h, CommandRescue, func(g *testGuest) Options { return options(g) }, guestOptions{agent: true}, "suspend.done", "")
			h = h.elsewhere(t)
			g := h.add(1, guestOptions{agent: true})
			h.purge()
			run, _ := h.crashAt(CommandRescue, options(g), k)
			s, err := h.engine().PrepareResume(t.Context(), run, false)
			must(t, err)
			report, _ := s.Execute(breakIt(h))
			s.Close()
			h.hv.errs = map[string]error{}
			if d := h.hv.get(g.uuid); d.State == StatePaused {
				if len(report.Instances) > 0 && strings.Contains(g.report(report).Error, "it is as it was found") {
					t.Errorf("the guest is paused, and yet: %s", g.report(report).Error)
				}
				if status, err := h.runs().find(run); err != nil || status.State != RunInterrupted {
					t.Errorf("the guest is paused, and the run is %s (%v)", status.State, err)
				}
			}
			report, err = h.resume(t.Context(), run)
			if err != nil {
				t.Fatalf("the second resume: %v", err)
			}
			if r := g.report(report); r.Outcome != OutcomeRescued {
				t.Errorf("the second resume: %+v", r)
			}
			must(t, g.serving(StateRunning))
		})
	}
}

func TestAFailureToResumeTheGuestIsSaidAndLeftToResume(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{agent: true})
	h.purge()
	h.hv.change(g.uuid, func(d *fakeDomain) { d.counters["vda"] = BlockCounters{HighestOffset: 1 << 30} })
	h.hv.errs["resume"] = errors.New("no answer from the monitor")
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, "resume") || strings.Contains(r.Error,
		"it is as it was found") {
		t.Fatalf("%+v", r)
	}
	h.hv.errs = map[string]error{}
	h.hv.change(g.uuid, func(d *fakeDomain) { d.counters["vda"] = BlockCounters{} })
	report, err = h.resume(t.Context(), report.Run)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	must(t, g.serving(StateRunning))
}

// Somebody restored an old copy and started the guest on it: what the
// interrupted run proved is newer, and nobody else has it.
func TestResumeKeepsTheProvenCopyOfAGuestThatRunsOnOtherFiles(t *testing.T) {
	h := newHost(t)
	k := crashPoint(t, h, CommandRescue, func(g *testGuest) Options { return options(g) }, guestOptions{}, "destroy.done", "")
	h = h.elsewhere(t)
	g := h.add(1, guestOptions{})
	h.purge()
	run, _ := h.crashAt(CommandRescue, options(g), k)
	must(t, os.MkdirAll(g.dir, 0o755))
	must(t, os.WriteFile(g.disk, payload(77, 96<<10), 0o600))
	must(t, os.WriteFile(g.dir+"/disk.info", []byte("{}"), 0o600))
	must(t, h.hv.Start(t.Context(), g.uuid, false))
	report, err := h.resume(t.Context(), run)
	kept := g.pinned() > 0
	for _, path := range h.staged() {
		if data, err := os.ReadFile(path); err == nil && string(data) == string(g.content[g.disk]) {
			kept = true
		}
	}
	if !kept {
		t.Errorf("the newest data of the guest is gone for good: %+v, %v", report.Instances, err)
	}
}

func TestResumeOfSeveralInstancesAtATime(t *testing.T) {
	h := newHost(t)
	var all []*testGuest
	for n := range 3 {
		all = append(all, h.add(n+1, guestOptions{base: "shared"}))
	}
	h.purge()
	o := options(all...)
	o.Parallel = 3
	// The crash comes when all three have begun.
	e := h.engine()
	crashed, begun := make(chan struct{}), make(chan struct{}, 3)
	e.Failpoint = func(point string) {
		if point == "instance.begin" {
			if begun <- struct{}{}; len(begun) == 3 {
				close(crashed)
			}
			select {}
		}
	}
	go func() {
		s, err := e.Prepare(context.Background(), CommandRescue, o)
		if err == nil {
			s.Execute(context.Background())
		}
	}()
	<-crashed
	info, _ := stateDir(h.settings.StateDir).running()
	h.dropLock()
	h.killKeeper() // so that each wants to start one
	report, err := h.resume(t.Context(), info.Run)
	must(t, err)
	for _, g := range all {
		if r := g.report(report); r.Outcome != OutcomeRescued {
			t.Errorf("%+v", r)
		}
		must(t, g.serving(StateRunning))
	}
}

func TestASecondRunNamesTheFirst(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.purge()
	s, err := h.engine().Prepare(t.Context(), CommandRescue, options(g))
	must(t, err)
	defer s.Close()
	run := s.Plan().Run
	for name, begin := range map[string]func() (*Session, error){
		"a run":    func() (*Session, error) { return h.engine().Prepare(t.Context(), CommandRescue, options(g)) },
		"a resume": func() (*Session, error) { return h.engine().PrepareResume(t.Context(), run, false) },
	} {
		if _, err := begin(); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), run) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ids, err := stateDir(h.settings.StateDir).list(); err != nil || len(ids) != 1 {
		t.Errorf("the refused run left its directory: %v, %v", ids, err)
	}
	must(t, s.Abandon(t.Context()))
	if n := g.pinned(); n != 0 {
		t.Errorf("an abandoned run left %d pins", n)
	}
	if ids, _ := stateDir(h.settings.StateDir).list(); len(ids) != 0 {
		t.Errorf("an abandoned run left %v", ids)
	}
}

func TestAnInstanceInTheHandsOfAnUnfinishedRunIsRefused(t *testing.T) {
	h := newHost(t)
	k := crashPoint(t, h, CommandRescue, func(g *testGuest) Options { return options(g) }, guestOptions{}, "suspend.done", "")
	h = h.elsewhere(t)
	g := h.add(1, guestOptions{})
	h.purge()
	run, _ := h.crashAt(CommandRescue, options(g), k)
	for _, command := range []Command{CommandRescue, CommandBackup} {
		o := options(g)
		if command == CommandBackup {
			o.BackupDir = filepath.Join(t.TempDir(), "b")
		}
		report, err := h.run(t.Context(), command, o)
		must(t, err)
		if r := g.report(report); r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, "resume "+run) {
			t.Errorf("%s: %+v", command, r)
		}
	}
}

func TestAnInterruptedBackupCanBeFinished(t *testing.T) {
	for _, point := range []string{"suspend.done", "backup.begin", "store.begin", "store.done", "backup.done", "continue.done"} {
		t.Run(point, func(t *testing.T) {
			h := newHost(t)
			with := func(g *testGuest) Options {
				o := options(g)
				o.BackupDir = filepath.Join(filepath.Dir(g.h.settings.InstancesPath), "backup")
				return o
			}
			k := crashPoint(t, h, CommandBackup, with, guestOptions{agent: true}, point, "")
			h = h.elsewhere(t)
			g := h.add(1, guestOptions{agent: true})
			pid := h.hv.get(g.uuid).PID
			h.purge()
			o := with(g)
			run, at := h.crashAt(CommandBackup, o, k)
			if at != point {
				t.Fatalf("crashed at %s", at)
			}
			if point == "store.begin" {
				// As if it had been killed in the middle of the copying.
				must(t, os.MkdirAll(filepath.Join(o.BackupDir, g.uuid), 0o700))
				must(t, os.WriteFile(filepath.Join(o.BackupDir, g.uuid, "disk"), []byte("half"), 0o600))
			}
			report, err := h.resume(t.Context(), run)
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeRescued {
				t.Errorf("%+v", r)
			}
			must(t, g.asFound(StateRunning, pid))
			m, err := readManifest(o.BackupDir)
			must(t, err)
			if len(m.Instances) != 1 {
				t.Errorf("the manifest has %d entries", len(m.Instances))
			}
			if data, err := os.ReadFile(filepath.Join(o.BackupDir, g.uuid, "disk")); err != nil || string(data) != string(g.content[g.disk]) {
				t.Errorf("the backup of the disk: %v", err)
			}
		})
	}
}
