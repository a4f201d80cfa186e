package recovertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// MountExt4 mounts a new ext4 on a directory until the test ends. args are further ones of
// mkfs.ext4.
func MountExt4(t testing.TB, dir string, args ...string) {
	t.Helper()
	images, err := os.MkdirTemp("/dev/shm", "recover-test-") // no disk to wait for
	Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(images) })
	image := filepath.Join(images, "image")
	Must(t, os.WriteFile(image, nil, 0o600))
	Must(t, os.Truncate(image, 64<<20))
	for _, command := range [][]string{append(append([]string{"mkfs.ext4", "-q"}, args...), image), {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// MakeNumbered makes a file that has that inode number, which must be free: as many others
// as it takes are made beside it first.
func MakeNumbered(t testing.TB, path string, inode uint64, content []byte) {
	t.Helper()
	for n := range 1000 {
		Must(t, os.WriteFile(path, content, 0o600))
		var st unix.Stat_t
		Must(t, unix.Stat(path, &st))
		if st.Ino == inode {
			return
		}
		Must(t, os.Rename(path, fmt.Sprintf("%s.not-%d", path, n)))
	}
	t.Fatalf("no file got the number %d", inode)
}
