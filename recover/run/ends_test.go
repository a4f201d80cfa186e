package run_test

import (
	"path/filepath"
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
