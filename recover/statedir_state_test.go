package recover

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheLockEndsWithWhatHoldsItAndNamesItBefore(t *testing.T) {
	s := stateDir(t.TempDir())
	must(t, s.make())
	if _, running := s.running(); running {
		t.Error("a run without a lock file")
	}
	f, err := s.lock(lockInfo{Run: "r1", Command: CommandBackup, PID: 7})
	must(t, err)
	if _, err := s.lock(lockInfo{Run: "r2"}); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "r1") ||
		!strings.Contains(err.Error(), "backup") {
		t.Errorf("%v", err)
	}
	if info, running := s.running(); !running || info.Run != "r1" || info.PID != 7 {
		t.Errorf("%+v %v", info, running)
	}
	must(t, f.Close())
	if _, running := s.running(); running {
		t.Error("it outlived its holder")
	}
	f, err = s.lock(lockInfo{Run: "r3"})
	must(t, err)
	defer f.Close()
	if info, _ := s.running(); info.Run != "r3" {
		t.Errorf("%+v", info)
	}
}

func TestARunIsFoundByTheBeginningOfItsName(t *testing.T) {
	s := stateDir(t.TempDir())
	must(t, s.make())
	for _, id := range []string{"20260101-000000-aaaa", "20260101-000000-aabb", "20260102-000000-cccc"} {
		must(t, os.Mkdir(s.run(id), 0o700))
	}
	for prefix, want := range map[string]string{
		"20260102":             "20260102-000000-cccc",
		"20260101-000000-aab":  "20260101-000000-aabb",
		"20260101-000000-aaaa": "20260101-000000-aaaa",
		"20260101":             "",
		"2027":                 "",
		"../runs/20260102":     "",
	} {
		got, err := s.find(prefix)
		if got != want || (want == "") != errors.Is(err, ErrNoRun) {
			t.Errorf("find(%q) = %q, %v", prefix, got, err)
		}
	}
}

func TestTheStateDirectoryIsClosedToOthers(t *testing.T) {
	s := stateDir(filepath.Join(t.TempDir(), "a/b"))
	must(t, os.MkdirAll(string(s), 0o755))
	must(t, os.Chmod(string(s), 0o755))
	must(t, s.make())
	for _, dir := range []string{string(s), s.runs()} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", dir, st.Mode(), err)
		}
	}
}
