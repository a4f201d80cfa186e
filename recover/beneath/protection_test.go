package beneath

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// chattr sets an attribute until the test's end.
func chattr(t *testing.T, flag, path string) {
	t.Helper()
	if out, err := exec.Command("chattr", "+"+flag, path).CombinedOutput(); err != nil {
		t.Fatalf("chattr +%s %s: %s: the file system of TMPDIR must know the attribute", flag, path, out)
	}
	t.Cleanup(func() { _ = exec.Command("chattr", "-"+flag, path).Run() })
}

func TestWhatKeepsNamesFromADirectoryIsSeenBeforeOneIsMade(t *testing.T) {
	for name, c := range map[string]struct {
		protect func(t *testing.T, dir string)
		says    string
		refused map[Change]bool
	}{
		"an ordinary directory": {},
		"an immutable one": {
			protect: func(t *testing.T, dir string) { chattr(t, "i", dir) },
			says:    "chattr -i ",
			refused: map[Change]bool{ChangeAddNames: true, ChangeNames: true, ChangeItself: true},
		},
		"an append-only one": {
			protect: func(t *testing.T, dir string) { chattr(t, "a", dir) },
			says:    "chattr -a ",
			refused: map[Change]bool{ChangeNames: true, ChangeItself: true},
		},
		"one that is mounted read-only": {
			protect: func(t *testing.T, dir string) {
				must(t, unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY, ""))
				t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			},
			says:    "mounted read-only",
			refused: map[Change]bool{ChangeAddNames: true, ChangeNames: true, ChangeItself: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "d")
			must(t, os.Mkdir(path, 0o755))
			if c.protect != nil {
				c.protect(t, path)
			}
			r, err := OpenRoot("/")
			must(t, err)
			defer r.Close()
			dir, err := r.OpenDir(path)
			must(t, err)
			defer dir.Close()
			for _, change := range []Change{ChangeAddNames, ChangeNames, ChangeItself} {
				err := dir.Permits(change)
				if (err != nil) != c.refused[change] {
					t.Errorf("change %d: %v", change, err)
				}
				if err != nil && (!errors.Is(err, ErrProtected) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path)) {
					t.Errorf("change %d: %v; want %q of %s", change, err, c.says, path)
				}
			}
			// What is said must be what the kernel does.
			f, err := dir.Create("probe")
			if (err != nil) != c.refused[ChangeAddNames] {
				t.Errorf("create: %v", err)
			}
			if err == nil {
				f.Close()
				if err := MoveAside(dir, "probe", "aside"); (err != nil) != c.refused[ChangeNames] {
					t.Errorf("rename: %v", err)
				}
			}
		})
	}
}

func TestWhatKeepsAFileFromAnotherNameIsSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, nil, 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, Permits(f, path, ChangeItself))
	chattr(t, "i", path)
	if err := Permits(f, path, ChangeItself); !errors.Is(err, ErrProtected) || os.Link(path, path+"2") == nil {
		t.Errorf("%v", err)
	}
}

func TestANameThatCanNotBeMadeIsSeenAtItsNearestDirectory(t *testing.T) {
	top := t.TempDir()
	must(t, unix.Mount("none", top, "tmpfs", 0, "nr_inodes=4,mode=755"))
	t.Cleanup(func() { _ = unix.Unmount(top, unix.MNT_DETACH) })
	must(t, os.Mkdir(top+"/d", 0o755))
	r, err := OpenRoot("/")
	must(t, err)
	defer r.Close()
	for name, want := range map[string]error{
		"d/disk": nil, "d/new/disk": nil, "d/" + strings.Repeat("x", 255): nil,
		"d/" + strings.Repeat("x", 256): unix.ENAMETOOLONG, "d/" + strings.Repeat("x", 256) + "/disk": unix.ENAMETOOLONG,
	} {
		if err := r.CanName(filepath.Join(top, name), ChangeNames); !errors.Is(err, want) {
			t.Errorf("%.20s...: %v, want %v", name, err, want)
		}
	}
	for n := range 4 {
		_ = os.WriteFile(filepath.Join(top, "d", string(rune('a'+n))), nil, 0o600)
	}
	if err := r.CanName(top+"/d/disk", ChangeNames); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "no inode left") {
		t.Errorf("%v", err)
	}
}
