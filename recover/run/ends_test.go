package run_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// isFinished fails the test unless the run is finished, no instance counts as in a run's
// hands, and no run as unfinished.
func isFinished(t *testing.T, h *runtest.Host, run string) {
	t.Helper()
	status, err := h.Runs().Find(run)
	recovertest.Must(t, err)
	if status.State != recover.RunFinished {
		t.Errorf("the run is %s: %+v", status.State, status.Instances)
	}
	unsettled, err := h.Runs().Unsettled(t.Context())
	recovertest.Must(t, err)
	unfinished, err := h.Runs().Unfinished(t.Context())
	recovertest.Must(t, err)
	if len(unsettled)+len(unfinished) > 0 {
		t.Errorf("unsettled %v, unfinished %+v", unsettled, unfinished)
	}
}

// Every instance of the host with lost files is pinned before the backup is read: those
// that are not in it are none of the run's.
func TestARestoreOfSomeInstancesOfAHostIsFinished(t *testing.T) {
	h := runtest.NewHost(t)
	in, out := h.Add(1, recovertest.GuestOptions{}), h.Add(2, recovertest.GuestOptions{})
	dir := filepath.Join(filepath.Dir(h.Settings.InstancesPath), "backup")
	o := recovertest.OfflineOptions(in)
	o.BackupDir = dir
	_, err := h.Run(t.Context(), recover.CommandBackup, o)
	recovertest.Must(t, err)
	h.Purge()
	report, err := h.Run(t.Context(), recover.CommandRestore,
		recover.Options{Selection: recover.Selection{All: true}, BackupDir: dir, Offline: true, Parallel: 2})
	recovertest.Must(t, err)
	if len(report.Instances) != 1 || in.Report(report).Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", report.Instances)
	}
	isFinished(t, h, report.Run)
	if n := out.Pinned(); n != 0 {
		t.Errorf("%d files of an instance that is not in the backup are still pinned", n)
	}
}

// deletions are what Nova can say of an instance that somebody has deleted.
func deletions() map[string]func(h *runtest.Host, g *recovertest.Guest) {
	return map[string]func(h *runtest.Host, g *recovertest.Guest){
		"is gone": func(h *runtest.Host, g *recovertest.Guest) { h.Cloud.Deletes(g.UUID) },
		"is SOFT_DELETED": func(h *runtest.Host, g *recovertest.Guest) {
			h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.To(recover.VMSoftDeleted) })
		},
		"is being deleted": func(h *runtest.Host, g *recovertest.Guest) {
			h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.TaskState = "deleting" })
		},
	}
}

// endsDeleted fails the test unless a run has ended for an instance that was deleted.
func endsDeleted(t *testing.T, h *runtest.Host, g *recovertest.Guest, report recover.RunReport) {
	t.Helper()
	r := g.Report(report)
	if r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, recover.ErrDeleted.Error()) ||
		!strings.Contains(r.Error, "resume --abandon "+report.Run+" --release") {
		t.Errorf("%s: %s", r.Outcome, r.Error)
	}
	if _, err := os.Stat(g.Disk); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the disk of an instance that was deleted was published: %v", err)
	}
	if g.Pinned() == 0 {
		t.Error("its files were let go, and nobody has said so")
	}
	isFinished(t, h, report.Run)
}

func TestAnInstanceThatIsDeletedDuringItsRescueIsNotPutBack(t *testing.T) {
	for name, deletes := range deletions() {
		for _, at := range []string{"plan.done", "lock.done", "suspend.done", "copy.done", "destroy.begin", "destroy.done"} {
			for _, off := range []bool{false, true} {
				t.Run(fmt.Sprint(name, " at ", at, ", and its domain: ", off), func(t *testing.T) {
					h, g := onlineHost(t, recovertest.GuestOptions{})
					pid := h.HV.Get(g.UUID).PID
					once := sync.Once{}
					e := h.Engine()
					e.Failpoint = func(point string) {
						if point == at {
							once.Do(func() {
								deletes(h, g)
								if off {
									g.Forgotten()
								}
							})
						}
					}
					s, err := e.Prepare(t.Context(), recover.CommandRescue, recovertest.Options(g))
					recovertest.Must(t, err)
					defer s.Close()
					report, err := s.Execute(t.Context())
					recovertest.Must(t, err)
					endsDeleted(t, h, g, report)
					if left := h.Staged(); len(left) > 0 {
						t.Errorf("left behind: %v", left)
					}
					if !off && !strings.HasPrefix(at, "destroy") {
						recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
					}
				})
			}
		}
	}
}

// TestAnInstanceThatIsDeletedWhileItIsRebootedEndsItsRun: what was put back by then is named.
func TestAnInstanceThatIsDeletedWhileItIsRebootedEndsItsRun(t *testing.T) {
	for name, deletes := range deletions() {
		t.Run(name, func(t *testing.T) {
			h, g := onlineHost(t, recovertest.GuestOptions{})
			e := h.Engine()
			e.Failpoint = func(point string) {
				if point == "reboot.begin" {
					deletes(h, g)
				}
			}
			report := executed(t, e, recovertest.Options(g))
			if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "had put back "+g.Disk) ||
				!strings.Contains(r.Error, "resume --abandon "+report.Run+" --release") {
				t.Errorf("%s: %s", r.Outcome, r.Error)
			}
			isFinished(t, h, report.Run)
			if n := h.Cloud.Called("HardReboot", ""); n > 0 {
				t.Errorf("%d hard reboots", n)
			}
		})
	}
}

func TestAResumeEndsForAnInstanceThatWasDeletedMeanwhile(t *testing.T) {
	for name, deletes := range deletions() {
		for _, at := range []string{"lock.done", "suspend.done", "copy.done", "destroy.done"} {
			t.Run(name+" at "+at, func(t *testing.T) {
				h, g, run := crashOnline(t, recovertest.GuestOptions{}, at)
				pid := h.HV.Get(g.UUID).PID
				deletes(h, g)
				report, err := h.Resume(t.Context(), run)
				recovertest.Must(t, err)
				endsDeleted(t, h, g, report)
				if at != "destroy.done" {
					recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
				}
				if n := h.Cloud.Called("HardReboot", ""); n > 0 {
					t.Errorf("%d hard reboots", n)
				}
			})
		}
	}
}

// The keeper is gone with all that it held, and so is every QEMU: what no copy was proven
// of is lost, and a resume can't change that.
func TestAResumeAfterABootEndsAndSaysWhatIsGone(t *testing.T) {
	for _, at := range []string{"suspend.done", "copy.begin", "destroy.done"} {
		t.Run(at, func(t *testing.T) {
			h, g, run := crashed(t, recovertest.GuestOptions{Base: "b"}, at)
			recovertest.Must(t, os.RemoveAll(g.Base)) // put back before the suspend
			h.HV.Change(g.UUID, (*recovertest.FakeDomain).Off)
			h.KillKeeper()
			report, err := h.Resume(t.Context(), run)
			recovertest.Must(t, err)
			r := g.Report(report)
			if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "Nobody holds "+g.Base) {
				t.Errorf("%s: %s", r.Outcome, r.Error)
			}
			if at == "destroy.done" {
				if !strings.Contains(r.Error, "proven and on disk: ") || len(h.Staged()) == 0 {
					t.Errorf("its proven copy is not named: %s", r.Error)
				}
			}
			isFinished(t, h, run)
		})
	}
}

func TestAResumeOfABackupWhoseGuestHasEndedEndsAndLeavesNothingInItsWay(t *testing.T) {
	first := runtest.NewHost(t)
	dir := filepath.Join(t.TempDir(), "b")
	options := func(g *recovertest.Guest) recover.Options {
		o := recovertest.Options(g)
		o.BackupDir = filepath.Join(t.TempDir(), "b")
		return o
	}
	k := runtest.CrashPoint(t, first, recover.CommandBackup, options, recovertest.GuestOptions{}, "store.done", "disk")
	h := first.Elsewhere(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Purge()
	o := recovertest.Options(g)
	o.BackupDir = dir
	run, _ := h.CrashAt(recover.CommandBackup, o, k)
	h.HV.Change(g.UUID, (*recovertest.FakeDomain).Off)
	report, err := h.Resume(t.Context(), run)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "ended before its backup") {
		t.Errorf("%+v", r)
	}
	isFinished(t, h, run)
	if left, err := filepath.Glob(filepath.Join(dir, "*", "disk")); err != nil || len(left) > 0 {
		t.Errorf("left in the backup directory: %v, %v", left, err)
	}
}

func TestARunWhoseBackupDirectoryCanNotBeUsedIsFinished(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	pid := h.HV.Get(g.UUID).PID
	h.Purge()
	o := recovertest.Options(g)
	o.BackupDir = filepath.Join(t.TempDir(), "a file")
	s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	defer s.Close()
	recovertest.Must(t, os.WriteFile(o.BackupDir, nil, 0o600))
	report, err := s.Execute(t.Context())
	if err == nil || g.Report(report).Outcome != recover.OutcomeSkipped {
		t.Errorf("%v: %+v", err, report.Instances)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
	isFinished(t, h, report.Run)
}

func TestAResumeOfARunThatHadNoPlanEndsWhenItsInstanceIsGone(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Purge()
	run, point := h.CrashAt(recover.CommandRescue, recovertest.OfflineOptions(g), 3)
	if point != "pin.done" {
		t.Fatalf("it crashed at %s", point)
	}
	g.Forgotten()
	if _, err := h.Resume(t.Context(), run); !errors.Is(err, recover.ErrNoRun) || !errors.Is(err, recover.ErrNothingSelected) {
		t.Errorf("%v", err)
	}
	isFinished(t, h, run)
	if g.Pinned() == 0 {
		t.Error("its files were let go")
	}
}

// Its files are back. That libvirt has forgotten the domain, and nobody its definition, is
// for Nova to mend.
func TestAnInstanceThatNobodyCanDefineEndsWithItsFilesBack(t *testing.T) {
	h, g, run := crashed(t, recovertest.GuestOptions{}, "destroy.done")
	h.HV.Forget(g.UUID)
	recovertest.Must(t, os.Remove(h.State().Definition(run, g.UUID)))
	report, err := h.Resume(t.Context(), run)
	recovertest.Must(t, err)
	next := "os-rescue reboot --instance " + g.UUID + " --state ERROR"
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, next) {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.Back())
	isFinished(t, h, run)
	if n := g.Pinned(); n != 0 {
		t.Errorf("%d files that are back are still pinned", n)
	}
}
