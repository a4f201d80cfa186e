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

func TestAStateDirectoryThatOthersCouldHaveMadeIsNotUsed(t *testing.T) {
	const nobody = 65534
	for name, prepare := range map[string]func(above, dir string) error{
		"another user's": func(_, dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, nobody, -1)) },
		"others can write it": func(_, dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o722))
		},
		"in another user's":            func(above, dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chown(above, nobody, -1)) },
		"to be made in another user's": func(above, _ string) error { return os.Chown(above, nobody, -1) },
		"a symlink": func(above, dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(above, "x"), 0o700), os.Symlink("x", dir))
		},
		"a dangling symlink": func(_, dir string) error { return os.Symlink("nowhere", dir) },
		"a file":             func(_, dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"its runs are a symlink": func(above, dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Symlink(above, filepath.Join(dir, "runs")))
		},
		"its runs are another user's": func(_, dir string) error {
			runs := filepath.Join(dir, "runs")
			return errors.Join(os.MkdirAll(runs, 0o700), os.Chown(runs, nobody, -1))
		},
	} {
		above := filepath.Join(t.TempDir(), "above")
		dir := filepath.Join(above, "os-rescue")
		recovertest.Must(t, errors.Join(os.Mkdir(above, 0o755), prepare(above, dir)))
		for what, err := range map[string]error{"Check": Dir(dir).Check(), "Make": Dir(dir).Make()} {
			if !errors.Is(err, recover.ErrUnusable) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
	}
	recovertest.Must(t, Dir(filepath.Join(t.TempDir(), "a/b")).Check())
}
