package run_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// crashPoint returns which record of the rescue of such a guest is the first one of that
// point, counted from 1.
func crashPoint(t *testing.T, h *runtest.Host, add recovertest.GuestOptions, point string) int {
	t.Helper()
	options := func(g *recovertest.Guest) recover.Options { return recovertest.Options(g) }
	return runtest.CrashPoint(t, h, recover.CommandRescue, options, add, point, "")
}

// crashed returns a host on which the rescue of such a guest was killed at that point, the
// guest, and the run's name.
func crashed(t *testing.T, add recovertest.GuestOptions, point string) (h *runtest.Host, g *recovertest.Guest, run string) {
	t.Helper()
	first := runtest.NewHost(t)
	k := crashPoint(t, first, add, point)
	h = first.Elsewhere(t)
	g = h.Add(1, add)
	h.Purge()
	run, _ = h.CrashAt(recover.CommandRescue, recovertest.Options(g), k)
	return h, g, run
}

// cancelled rescues a guest until stop is true of a point of the journal: there the
// operator wants to stop.
func cancelled(t *testing.T, h *runtest.Host, g *recovertest.Guest, stop func(point string) bool) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e := h.Engine()
	e.Failpoint = func(point string) {
		if stop(point) {
			cancel()
		}
	}
	s, err := e.Prepare(ctx, recover.CommandRescue, recovertest.Options(g))
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Execute(ctx)
	return err
}

// crashes goes through every journal point of a rescue, from the first one of that name
// on. after says what becomes of the host between the crash and the resume; state is how
// the guest must end if it was not destroyed before the crash.
func crashes(
	t *testing.T,
	from string,
	o func(*runtest.Host, *recovertest.Guest) recover.Options,
	add recovertest.GuestOptions,
	after func(*runtest.Host, *recovertest.Guest),
	state recover.DomainState,
) {
	t.Helper()
	first := runtest.NewHost(t)
	add.Base = "b"
	options := func(g *recovertest.Guest) recover.Options { return o(&runtest.Host{Host: g.H}, g) }
	for k := runtest.CrashPoint(t, first, recover.CommandRescue, options, add, from, ""); ; k++ {
		h := first.Elsewhere(t)
		add.Base = fmt.Sprint("b", k) // inode numbers are used again: let no path be
		g := h.Add(k, add)
		found := h.HV.Get(g.UUID).State
		h.Purge()
		run, point := h.CrashAt(recover.CommandRescue, o(h, g), k)
		if run == "" {
			if k < 20 {
				t.Fatalf("only %d journal points", k)
			}
			return
		}
		where := fmt.Sprintf("%d %s", k, point)
		said := runtest.Points(h.Journal(run))
		destroyed := slices.Contains(said, "destroy.begin")
		if after != nil {
			after(h, g)
		}
		if point == "run.done" {
			if _, err := h.Resume(t.Context(), run); !errors.Is(err, recover.ErrNoRun) {
				t.Errorf("%s: a finished run was resumed: %v", where, err)
			}
			continue
		}
		report, err := h.Resume(t.Context(), run)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		r := g.Report(report)
		if r.Outcome != recover.OutcomeRescued && r.Outcome != recover.OutcomeIntact {
			t.Errorf("%s: %+v", where, r)
		}
		want := state
		if destroyed || state == "" {
			want = found
		}
		if destroyed && h.HV.Get(g.UUID).State == recover.StateShutOff && after != nil && h.HV.Called("start", g.UUID) > 1 {
			want = recover.StateShutOff // started again before the crash, and ended since
		}
		if err := g.Serving(want); err != nil {
			t.Errorf("%s: %v", where, err)
		}
		if left := h.Staged(); len(left) > 0 {
			t.Errorf("%s: left behind: %v", where, left)
		}
		if n := g.Pinned(); n != 0 {
			t.Errorf("%s: the keeper still holds %d files", where, n)
		}
		if status, err := h.Runs().Find(run); err != nil || status.State != recover.RunFinished {
			t.Errorf("%s: the run is %s, %v", where, status.State, err)
		}
		h.HV.EndAll()
	}
}

func plain(_ *runtest.Host, g *recovertest.Guest) recover.Options { return recovertest.Options(g) }

func TestResumeAfterKill9AtEveryJournalPointBringsTheInstanceBack(t *testing.T) {
	t.Parallel()
	crashes(t, "run.begin", plain, recovertest.GuestOptions{Console: true, Agent: true}, nil, "")
}

func TestResumeAfterKill9AndTheGuestsOwnEndBringsItsFilesBack(t *testing.T) {
	t.Parallel()
	crashes(t, "pin.done", plain, recovertest.GuestOptions{Console: true, Agent: true}, func(h *runtest.Host, g *recovertest.Guest) {
		h.HV.Change(g.UUID, (*recovertest.FakeDomain).Off)
	}, recover.StateShutOff)
}

func TestResumeAfterKill9WithABackupDirectoryBringsTheInstanceBack(t *testing.T) {
	t.Parallel()
	crashes(t, "backup.begin", func(h *runtest.Host, g *recovertest.Guest) recover.Options {
		o := recovertest.Options(g)
		o.BackupDir = filepath.Join(filepath.Dir(h.Settings.InstancesPath), "backup")
		return o
	}, recovertest.GuestOptions{}, nil, "")
}

// Only what is on the disk is left: the staged copy, proven or not.
func TestResumeAfterAPowerCutNeverRemovesTheOnlyCopy(t *testing.T) {
	t.Parallel()
	first := runtest.NewHost(t)
	for k := crashPoint(t, first, recovertest.GuestOptions{Base: "b"}, "instance.begin"); ; k++ {
		h := first.Elsewhere(t)
		g := h.Add(k, recovertest.GuestOptions{Base: fmt.Sprint("b", k), Console: true})
		h.Purge()
		run, point := h.CrashAt(recover.CommandRescue, recovertest.Options(g), k)
		if run == "" {
			return
		}
		where := fmt.Sprintf("%d %s", k, point)
		h.HV.Change(g.UUID, (*recovertest.FakeDomain).Off)
		h.KillKeeper()
		copies := func() int {
			n := 0
			filepath.WalkDir(h.Settings.InstancesPath, func(path string, _ os.DirEntry, _ error) error {
				if data, err := os.ReadFile(path); err == nil && string(data) == string(g.Content[g.Disk]) {
					n++
				}
				return nil
			})
			return n
		}
		before := copies()
		histories, err := journal.HistoriesOf(h.Journal(run))
		recovertest.Must(t, err)
		proven := false // also when nothing was done yet
		if history := histories[g.UUID]; history != nil {
			proven = history.Copies[g.Disk].Proven
		}
		report, err := h.Resume(t.Context(), run)
		if before > 0 && copies() == 0 {
			t.Errorf("%s: the only copy of the disk was removed (%+v, %v)", where, report.Instances, err)
		}
		if before == 0 && err == nil && len(report.Instances) > 0 {
			if r := g.Report(report); strings.Contains(r.Error, "No data is lost") {
				t.Errorf("%s: the data is gone, and it says: %s", where, r.Error)
			}
		}
		// Where the copy was proven, the instance comes back, be it without what its console said.
		if _, err := os.Lstat(g.Console); errors.Is(err, fs.ErrNotExist) {
			delete(g.Content, g.Console)
		}
		if proven && point != "run.done" {
			if err != nil {
				t.Errorf("%s: %v", where, err)
			} else if err := g.Back(); err != nil {
				t.Errorf("%s: %v (%s)", where, err, g.Report(report).Error)
			}
		}
		h.HV.EndAll()
	}
}

// Two instances share a base, which is restored once, by either; both finish.
func TestResumeOfInstancesThatShareABaseNeedsNobodyWhoHoldsItOnceItIsPublished(t *testing.T) {
	h := runtest.NewHost(t)
	a, b := h.Add(1, recovertest.GuestOptions{Base: "shared"}), h.Add(2, recovertest.GuestOptions{Base: "shared"})
	h.Purge()
	destroys := 0
	// The second destroy.done of a run with one instance at a time.
	e := h.Engine()
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
		s, err := e.Prepare(context.Background(), recover.CommandRescue, recovertest.Options(a, b))
		if err == nil {
			s.Execute(context.Background())
		}
	}()
	<-crashed
	info, _ := statedir.Dir(h.Settings.StateDir).Running()
	h.DropLock()
	h.KillKeeper()
	// The first to finish has let the base's old inode go: a new QEMU has the new one.
	report, err := h.Resume(t.Context(), info.Run)
	recovertest.Must(t, err)
	for _, g := range []*recovertest.Guest{a, b} {
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Errorf("%+v", r)
		}
		if err := g.Serving(recover.StateRunning); err != nil {
			t.Error(err)
		}
	}
}

func TestAResumeThatFailsIsNotSettledWhileTheGuestIsStillPaused(t *testing.T) {
	for name, breakIt := range map[string]func(*runtest.Host) context.Context{
		"because it is interrupted at once": func(h *runtest.Host) context.Context {
			ctx, cancel := context.WithCancel(h.T.Context())
			cancel()
			return ctx
		},
		"because the hypervisor does not answer": func(h *runtest.Host) context.Context {
			h.HV.Errs["domain"] = recover.ErrUnavailable
			return h.T.Context()
		},
		"because the guest can't be resumed": func(h *runtest.Host) context.Context {
			h.HV.Errs["resume"] = errors.New("no answer from the monitor")
			return h.T.Context()
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, g, run := crashed(t, recovertest.GuestOptions{Agent: true}, "suspend.done")
			s, err := h.Engine().PrepareResume(t.Context(), run, false)
			recovertest.Must(t, err)
			report, _ := s.Execute(breakIt(h))
			s.Close()
			h.HV.Errs = map[string]error{}
			if d := h.HV.Get(g.UUID); d.State == recover.StatePaused {
				if len(report.Instances) > 0 && strings.Contains(g.Report(report).Error, "is as it was found") {
					t.Errorf("the guest is paused, and yet: %s", g.Report(report).Error)
				}
				if status, err := h.Runs().Find(run); err != nil || status.State != recover.RunInterrupted {
					t.Errorf("the guest is paused, and the run is %s (%v)", status.State, err)
				}
			}
			report, err = h.Resume(t.Context(), run)
			if err != nil {
				t.Fatalf("the second resume: %v", err)
			}
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Errorf("the second resume: %+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
		})
	}
}

func TestAFailureToResumeTheGuestIsSaidAndLeftToResume(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Agent: true})
	h.Purge()
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Counters["vda"] = recover.BlockCounters{HighestOffset: 1 << 30} })
	h.HV.Errs["resume"] = errors.New("no answer from the monitor")
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "resume") || strings.Contains(r.Error,
		"is as it was found") {
		t.Fatalf("%+v", r)
	}
	h.HV.Errs = map[string]error{}
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Counters["vda"] = recover.BlockCounters{} })
	report, err = h.Resume(t.Context(), report.Run)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}

// Somebody restored an old copy and started the guest on it: what the
// interrupted run proved is newer, and nobody else has it.
func TestResumeKeepsTheProvenCopyOfAGuestThatRunsOnOtherFiles(t *testing.T) {
	h, g, run := crashed(t, recovertest.GuestOptions{}, "destroy.done")
	recovertest.Must(t, os.MkdirAll(g.Dir, 0o755))
	recovertest.Must(t, os.WriteFile(g.Disk, recovertest.Payload(77, 96<<10), 0o600))
	recovertest.Must(t, os.WriteFile(g.Dir+"/disk.info", []byte("{}"), 0o600))
	recovertest.Must(t, h.HV.Start(t.Context(), g.UUID, false))
	report, err := h.Resume(t.Context(), run)
	kept := g.Pinned() > 0
	for _, path := range h.Staged() {
		if data, err := os.ReadFile(path); err == nil && string(data) == string(g.Content[g.Disk]) {
			kept = true
		}
	}
	if !kept {
		t.Errorf("the newest data of the guest is gone for good: %+v, %v", report.Instances, err)
	}
}

func TestResumeOfSeveralInstancesAtATime(t *testing.T) {
	h := runtest.NewHost(t)
	var all []*recovertest.Guest
	for n := range 3 {
		all = append(all, h.Add(n+1, recovertest.GuestOptions{Base: "shared"}))
	}
	h.Purge()
	o := recovertest.Options(all...)
	o.Parallel = 3
	// The crash comes when all three have begun.
	e := h.Engine()
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
		s, err := e.Prepare(context.Background(), recover.CommandRescue, o)
		if err == nil {
			s.Execute(context.Background())
		}
	}()
	<-crashed
	info, _ := statedir.Dir(h.Settings.StateDir).Running()
	h.DropLock()
	h.KillKeeper() // so that each wants to start one
	report, err := h.Resume(t.Context(), info.Run)
	recovertest.Must(t, err)
	for _, g := range all {
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Errorf("%+v", r)
		}
		recovertest.Must(t, g.Serving(recover.StateRunning))
	}
}

func TestASecondRunNamesTheFirst(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Purge()
	s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	defer s.Close()
	id := s.Plan().Run
	for name, begin := range map[string]func() (*run.Session, error){
		"a run": func() (*run.Session, error) {
			return h.Engine().Prepare(t.Context(), recover.CommandRescue, recovertest.Options(g))
		},
		"a resume": func() (*run.Session, error) { return h.Engine().PrepareResume(t.Context(), id, false) },
	} {
		if _, err := begin(); !errors.Is(err, recover.ErrBusy) || !strings.Contains(err.Error(), id) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ids, err := statedir.Dir(h.Settings.StateDir).List(); err != nil || len(ids) != 1 {
		t.Errorf("the refused run left its directory: %v, %v", ids, err)
	}
	recovertest.Must(t, s.Abandon(t.Context()))
	if n := g.Pinned(); n != 0 {
		t.Errorf("an abandoned run left %d pins", n)
	}
	if ids, _ := statedir.Dir(h.Settings.StateDir).List(); len(ids) != 0 {
		t.Errorf("an abandoned run left %v", ids)
	}
}

// TestARunThatIsCalledOffKeepsWhatNobodyElseHasByThen: the guest ended while its operator
// thought about the plan.
func TestARunThatIsCalledOffKeepsWhatNobodyElseHasByThen(t *testing.T) {
	h := runtest.NewHost(t)
	g, other := h.Add(1, recovertest.GuestOptions{Base: "b"}), h.Add(2, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g, other))
	recovertest.Must(t, err)
	g.Destroyed()
	err = s.Abandon(t.Context())
	if !errors.Is(err, recover.ErrLastCopy) || !strings.Contains(err.Error(), g.UUID) || strings.Contains(err.Error(), other.UUID) {
		t.Errorf("it says %v", err)
	}
	if g.Pinned() == 0 || other.Pinned() != 0 {
		t.Errorf("%d files of the one that ended are held, and %d of the other", g.Pinned(), other.Pinned())
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.Back())
}

func TestAnInstanceInTheHandsOfAnUnfinishedRunIsRefused(t *testing.T) {
	h, g, run := crashed(t, recovertest.GuestOptions{}, "suspend.done")
	for _, command := range []recover.Command{recover.CommandRescue, recover.CommandBackup} {
		o := recovertest.Options(g)
		if command == recover.CommandBackup {
			o.BackupDir = filepath.Join(t.TempDir(), "b")
		}
		report, err := h.Run(t.Context(), command, o)
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "resume "+run) {
			t.Errorf("%s: %+v", command, r)
		}
	}
}

func TestAnInterruptedBackupCanBeFinished(t *testing.T) {
	for _, point := range []string{"suspend.done", "backup.begin", "store.begin", "store.done", "backup.done", "continue.done"} {
		t.Run(point, func(t *testing.T) {
			h := runtest.NewHost(t)
			with := func(g *recovertest.Guest) recover.Options {
				o := recovertest.Options(g)
				o.BackupDir = filepath.Join(filepath.Dir(g.H.Settings.InstancesPath), "backup")
				return o
			}
			k := runtest.CrashPoint(t, h, recover.CommandBackup, with, recovertest.GuestOptions{Agent: true}, point, "")
			h = h.Elsewhere(t)
			g := h.Add(1, recovertest.GuestOptions{Agent: true})
			pid := h.HV.Get(g.UUID).PID
			h.Purge()
			o := with(g)
			run, at := h.CrashAt(recover.CommandBackup, o, k)
			if at != point {
				t.Fatalf("crashed at %s", at)
			}
			if point == "store.begin" {
				// As if it had been killed in the middle of the copying.
				recovertest.Must(t, os.MkdirAll(filepath.Join(o.BackupDir, g.UUID), 0o700))
				recovertest.Must(t, os.WriteFile(filepath.Join(o.BackupDir, g.UUID, "disk"), []byte("half"), 0o600))
			}
			report, err := h.Resume(t.Context(), run)
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Errorf("%+v", r)
			}
			recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
			m, err := manifest.Read(o.BackupDir, "")
			recovertest.Must(t, err)
			if len(m.Instances) != 1 {
				t.Errorf("the manifest has %d entries", len(m.Instances))
			}
			if data, err := os.ReadFile(filepath.Join(o.BackupDir, g.UUID, "disk")); err != nil || string(data) != string(g.Content[g.Disk]) {
				t.Errorf("the backup of the disk: %v", err)
			}
		})
	}
}
