package run_test

import (
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// boundAt lets no file of this process grow by more than room bytes beyond what the run's
// journal has at a point, until the returned function is called.
func boundAt(t *testing.T, e *run.Engine, journalFile, at string, room int64) (lift func()) {
	t.Helper()
	var before unix.Rlimit
	recovertest.Must(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	signal.Ignore(unix.SIGXFSZ)
	lift = func() {
		recovertest.Must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &before))
		signal.Reset(unix.SIGXFSZ)
	}
	t.Cleanup(lift)
	e.Failpoint = func(point string) {
		if point != at {
			return
		}
		st, err := os.Stat(journalFile)
		recovertest.Must(t, err)
		recovertest.Must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(st.Size() + room), Max: before.Max}))
	}
	return lift
}

func TestAResumeThatCannotWriteItsNewPlanCanBeResumed(t *testing.T) {
	h, g, id := crashed(t, recovertest.GuestOptions{Base: "b"}, "suspend.done")

	// The plan is the longest record: those that say that it failed still fit.
	e := h.Engine()
	lift := boundAt(t, e, filepath.Join(h.State().Run(id), journal.FileName), "pin.done", 1600)
	s, err := e.PrepareResume(t.Context(), id, false)
	recovertest.Must(t, err)
	report, err := s.Execute(t.Context())
	recovertest.Must(t, err)
	s.Close()
	lift()
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "file too large") ||
		!strings.Contains(r.Error, "os-rescue resume "+id) {
		t.Errorf("%+v", r)
	}
	if n := len(h.Journal(id)); h.Journal(id)[n-1].Point() != "run.done" {
		t.Fatalf("the run did not end: %v", runtest.Points(h.Journal(id)))
	}

	report, err = h.Resume(t.Context(), id)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	if err := g.Serving(recover.StateRunning); err != nil {
		t.Error(err)
	}
}
