package guard_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// After a purge of Nova's whole directory a guarded host says what else is missing, and a run
// puts it back with its owner and mode.
func TestAPurgedComputeIDIsToldAndPutBack(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{Base: "b1"})
	path := h.Settings.ComputeIDPaths[0]
	content := recovertest.UUID(7) + "\n"
	recovertest.Must(t, os.WriteFile(path, []byte(content), 0o600))
	recovertest.Must(t, os.Chmod(path, 0o664))
	recovertest.Must(t, os.Chown(path, 1, 1)) // daemon
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	recovertest.Must(t, os.RemoveAll(filepath.Dir(path)))
	g.await("the loss", func(s guard.Status) bool { return s.Report.ComputeID != nil })
	checked := func() string {
		r, err := check.Make(t.Context(), check.SourcesOf(h.Settings, h.ScanAll), check.Options{})
		recovertest.Must(t, err)
		for _, f := range r.Findings {
			if f.Kind == check.FindingComputeID {
				return string(f.Level) + " " + f.Text
			}
		}
		return ""
	}
	if said := checked(); !strings.HasPrefix(said, "WARNING "+path+" is missing") || !strings.Contains(said, "can't start again") {
		t.Errorf("check says %q", said)
	}
	o := recovertest.OfflineOptions(v)
	plan, err := h.Engine().DryRun(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	said := strings.Join(plan.Warnings, "\n")
	if !strings.Contains(said, path+" is missing") || !strings.Contains(said, "The run puts it back") {
		t.Errorf("the plan says %q", said)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Fatal("the dry run has written it")
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if r := v.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	if said := strings.Join(report.Warnings, "\n"); !strings.Contains(said, path+", ") || !strings.Contains(said, "was put back") {
		t.Errorf("the report says %q", said)
	}
	hasComputeID(t, path, content, 1, 0o664)
	g.await("its end", func(s guard.Status) bool { return s.Report.ComputeID == nil && s.Report.Instances != nil })
	if said := checked(); said != "" {
		t.Errorf("check still says %q", said)
	}
}

// hasComputeID checks a compute_id, and that nothing else of a run's lies beside it.
func hasComputeID(t *testing.T, path, content string, uid uint32, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != content {
		t.Fatalf("it is %q, %v", data, err)
	}
	st, err := statOf(path)
	recovertest.Must(t, err)
	if st.Uid != uid || os.FileMode(st.Mode&0o7777) != mode {
		t.Errorf("it belongs to %d, %04o", st.Uid, st.Mode&0o7777)
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(path), recover.StagePrefix+recover.ComputeIDName)); err == nil {
		t.Error("what was staged is left")
	}
}

func statOf(path string) (st unix.Stat_t, err error) {
	err = unix.Lstat(path, &st)
	return st, err
}
