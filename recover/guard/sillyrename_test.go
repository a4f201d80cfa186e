package guard

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

func TestWhetherDeletedFilesKeepAHiddenName(t *testing.T) {
	root, err := beneath.OpenRoot("/")
	recovertest.Must(t, err)
	defer root.Close()
	is := func(path string) bool {
		t.Helper()
		dir, err := root.OpenDir(path)
		recovertest.Must(t, err)
		defer dir.Close()
		silly, err := sillyRenames(dir)
		recovertest.Must(t, err)
		if _, err := os.Lstat(filepath.Join(path, recover.StagePrefix+"guard-probe")); err == nil && !silly {
			t.Errorf("the probe is still in %s", path)
		}
		return silly
	}
	if is(t.TempDir()) {
		t.Error("an ordinary file system does not")
	}
	for _, silly := range []bool{false, true} {
		dir, err := os.MkdirTemp("", "silly-")
		recovertest.Must(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		server, err := lyingfs.Mount(dir, t.TempDir(), lyingfs.Options{SillyRename: silly})
		recovertest.Must(t, err)
		if got := is(dir); got != silly {
			t.Errorf("one that does (%t) is said to: %t", silly, got)
		}
		if !silly {
			recovertest.Must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
			d, err := root.OpenDir(dir)
			recovertest.Must(t, err)
			if _, err := sillyRenames(d); err == nil {
				t.Error("it can't be tried out on a read-only mount, and yet it says so")
			}
			d.Close()
		}
		recovertest.Must(t, server.Unmount())
	}
}

func TestTheKindOfAMount(t *testing.T) {
	const mounts = "36 35 98:0 / /mnt1 rw,noatime master:1 - ext3 /dev/root rw\n" +
		"40 35 0:52 / /var/lib/nova/instances rw - fuse.ceph-fuse ceph-fuse rw\nbroken\n"
	for device, want := range map[uint64]string{unix.Mkdev(0, 52): "fuse.ceph-fuse", unix.Mkdev(98, 0): "ext3", unix.Mkdev(1, 1): ""} {
		if got := mountKind([]byte(mounts), device); got != want {
			t.Errorf("%d: %q, want %q", device, got, want)
		}
	}
}

func FuzzMountKind(f *testing.F) {
	f.Add([]byte("36 35 98:0 / /mnt1 rw,noatime master:1 - ext3 /dev/root rw\n"))
	f.Fuzz(func(_ *testing.T, data []byte) { mountKind(data, 1) })
}
