package identity_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

// kinds are file systems, by what a birth is on them.
var kinds = map[string]struct {
	birth string // how it begins; empty where there is none
	mount func(t *testing.T, dir string)
}{
	"ext4": {"b", func(t *testing.T, dir string) { recovertest.MountExt4(t, dir) }},
	// Inodes of this size have no room for the time of their making.
	"ext4 with small inodes": {"g", func(t *testing.T, dir string) { recovertest.MountExt4(t, dir, "-I", "128") }},
	"tmpfs":                  {"b", func(t *testing.T, dir string) { mount(t, "tmpfs", "tmpfs", dir, "") }},
	"overlayfs": {"b", func(t *testing.T, dir string) {
		layers := t.TempDir()
		mount(t, "tmpfs", "tmpfs", layers, "")
		for _, name := range []string{"lower", "upper", "work"} {
			recovertest.Must(t, os.Mkdir(filepath.Join(layers, name), 0o755))
		}
		mount(t, "overlay", "overlay", dir, fmt.Sprintf("lowerdir=%s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", layers))
	}},
	"FUSE": {"", func(t *testing.T, dir string) {
		server, err := lyingfs.Mount(dir, t.TempDir(), lyingfs.Options{})
		recovertest.Must(t, err)
		t.Cleanup(func() { recovertest.Must(t, server.Unmount()) })
	}},
}

func mount(t *testing.T, source, kind, dir, data string) {
	t.Helper()
	recovertest.Must(t, unix.Mount(source, dir, kind, 0, data))
	t.Cleanup(func() { recovertest.Must(t, unix.Unmount(dir, 0)) })
}

// views are the identities of an open file by every way that leads to it.
func views(t *testing.T, f *os.File, names ...string) map[string]recover.Inode {
	t.Helper()
	all := map[string]recover.Inode{}
	add := func(way string, s identity.Status, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		all[way] = s.Inode()
	}
	s, err := identity.OfFile(f)
	add("its descriptor", s, err)
	s, err = identity.At(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), 0)
	add("its link in /proc", s, err)
	for _, name := range names {
		s, err = identity.At(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW)
		add("its name", s, err)
		fd, err := unix.Open(name, unix.O_PATH, 0)
		recovertest.Must(t, err)
		s, err = identity.Of(fd)
		unix.Close(fd)
		add("a mere path", s, err)
	}
	return all
}

func TestAFileIsTheSameByEveryWayToItForAsLongAsItLives(t *testing.T) {
	for kind, c := range kinds {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			c.mount(t, dir)
			path := filepath.Join(dir, "disk")
			recovertest.Must(t, os.WriteFile(path, []byte("content"), 0o600))
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			recovertest.Must(t, err)
			defer f.Close()
			first, err := identity.OfFile(f)
			recovertest.Must(t, err)
			var plain unix.Stat_t
			recovertest.Must(t, unix.Fstat(int(f.Fd()), &plain))
			if first.Stat_t != plain {
				t.Errorf("the status is %+v; fstat says %+v", first.Stat_t, plain)
			}
			if b := first.Birth; b != "" && c.birth == "" || !strings.HasPrefix(b, c.birth) {
				t.Errorf("its birth is %q", b)
			}
			all := []map[string]recover.Inode{views(t, f, path)}
			_, err = f.WriteString("written")
			recovertest.Must(t, err)
			recovertest.Must(t, os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)))
			recovertest.Must(t, os.Chown(path, 1, 1))
			recovertest.Must(t, os.Rename(path, path+".bak"))
			all = append(all, views(t, f, path+".bak"))
			recovertest.Must(t, os.Remove(path+".bak"))
			all = append(all, views(t, f))
			for n, views := range all {
				for way, got := range views {
					if got != first.Inode() {
						t.Errorf("%d: by %s it is %v, and was %v", n, way, got, first.Inode())
					}
				}
			}
		})
	}
}

func TestAFileWithTheNumberOfOneThatIsGoneIsAnotherFile(t *testing.T) {
	for _, kind := range []string{"ext4", "ext4 with small inodes"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			kinds[kind].mount(t, dir)
			path := filepath.Join(dir, "disk")
			recovertest.Must(t, os.WriteFile(path, []byte("content"), 0o600))
			first, err := identity.At(unix.AT_FDCWD, path, 0)
			recovertest.Must(t, err)
			recovertest.Must(t, os.Remove(path))
			recovertest.MakeNumbered(t, path, first.Ino, []byte("content"))
			second, err := identity.At(unix.AT_FDCWD, path, 0)
			recovertest.Must(t, err)
			if second.Ino != first.Ino || second.Dev != first.Dev {
				t.Fatalf("%v after %v", second.Inode(), first.Inode())
			}
			if second.Inode().Is(first.Inode(), true) {
				t.Errorf("%v is taken for the file that is gone", second.Inode())
			}
		})
	}
}

func TestASymlinkIsFollowedOnlyWhereThatIsAsked(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	recovertest.Must(t, os.Symlink("/proc/self/status", link)) // where there is no birth
	for flags, want := range map[int]uint32{0: unix.S_IFREG, unix.AT_SYMLINK_NOFOLLOW: unix.S_IFLNK} {
		if s, err := identity.At(unix.AT_FDCWD, link, flags); err != nil || s.Mode&unix.S_IFMT != want {
			t.Errorf("%#x: %o, %v", flags, s.Mode, err)
		}
	}
	if _, err := identity.At(unix.AT_FDCWD, filepath.Join(dir, "nothing"), 0); !os.IsNotExist(err) {
		t.Errorf("of nothing it says %v", err)
	}
	f, err := os.Open(dir)
	recovertest.Must(t, err)
	f.Close()
	if _, err := identity.OfFile(f); err == nil {
		t.Error("a closed file has a status")
	}
}
