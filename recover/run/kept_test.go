package run_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// hasOpen is true when this process has the file at the path open.
func hasOpen(t *testing.T, path string) bool {
	t.Helper()
	want, err := os.Stat(path)
	recovertest.Must(t, err)
	fds, err := filepath.Glob("/proc/self/fd/*")
	recovertest.Must(t, err)
	for _, fd := range fds {
		if got, err := os.Stat(fd); err == nil && os.SameFile(want, got) {
			return true
		}
	}
	return false
}

// TestWhatARunHasPutBackStaysOpenUntilItsEnd: what its number tells depends on it, where no
// birth does.
func TestWhatARunHasPutBackStaysOpenUntilItsEnd(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	recovertest.Must(t, os.Remove(g.Base))
	e := h.Engine()
	looked := false
	e.Failpoint = func(point string) {
		if point == "confirm.begin" {
			looked = true
			if !hasOpen(t, g.Base) {
				t.Error("the run has closed it before it confirms it")
			}
		}
	}
	report := executed(t, e, recovertest.OfflineOptions(g))
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued || !looked {
		t.Fatalf("looked: %v; %+v", looked, r)
	}
	if hasOpen(t, g.Base) {
		t.Error("the run has ended and has it open still")
	}
}
