package statedir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestTheLockEndsWithWhatHoldsItAndNamesItBefore(t *testing.T) {
	s := Dir(t.TempDir())
	recovertest.Must(t, s.Make())
	if _, running := s.Running(); running {
		t.Error("a run without a lock file")
	}
	f, err := s.Lock(LockInfo{Run: "r1", Command: recover.CommandBackup, PID: 7})
	recovertest.Must(t, err)
	if _, err := s.Lock(LockInfo{Run: "r2"}); !errors.Is(err, recover.ErrBusy) || !strings.Contains(err.Error(), "r1") ||
		!strings.Contains(err.Error(), "backup") {
		t.Errorf("%v", err)
	}
	if info, running := s.Running(); !running || info.Run != "r1" || info.PID != 7 {
		t.Errorf("%+v %v", info, running)
	}
	recovertest.Must(t, f.Close())
	if _, running := s.Running(); running {
		t.Error("it outlived its holder")
	}
	f, err = s.Lock(LockInfo{Run: "r3"})
	recovertest.Must(t, err)
	defer f.Close()
	if info, _ := s.Running(); info.Run != "r3" {
		t.Errorf("%+v", info)
	}
}

func TestARunIsFoundByTheBeginningOfItsName(t *testing.T) {
	s := Dir(t.TempDir())
	recovertest.Must(t, s.Make())
	for _, id := range []string{"20260101-000000-aaaa", "20260101-000000-aabb", "20260102-000000-cccc"} {
		recovertest.Must(t, os.Mkdir(s.Run(id), 0o700))
	}
	for prefix, want := range map[string]string{
		"20260102":             "20260102-000000-cccc",
		"20260101-000000-aab":  "20260101-000000-aabb",
		"20260101-000000-aaaa": "20260101-000000-aaaa",
		"20260101":             "",
		"2027":                 "",
		"../runs/20260102":     "",
	} {
		got, err := s.Find(prefix)
		if got != want || (want == "") != errors.Is(err, recover.ErrNoRun) {
			t.Errorf("find(%q) = %q, %v", prefix, got, err)
		}
	}
}

func TestTheStateDirectoryIsClosedToOthers(t *testing.T) {
	s := Dir(filepath.Join(t.TempDir(), "a/b"))
	recovertest.Must(t, os.MkdirAll(string(s), 0o755))
	recovertest.Must(t, os.Chmod(string(s), 0o755))
	recovertest.Must(t, s.Make())
	for _, dir := range []string{string(s), s.runs()} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", dir, st.Mode(), err)
		}
	}
}
