package recovertest

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// CreateQcow2 makes an image with qemu-img create; args are its further options, the
// path and the size.
func CreateQcow2(t testing.TB, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "qemu-img", append([]string{"create", "-q", "-f", "qcow2"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img (needed for this test): %v %s", err, out)
	}
}

// Corrupt makes the first entry of a qcow2 image's L1 table point outside the image.
func Corrupt(t testing.TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	Must(t, err)
	defer f.Close()
	const l1TableOffset = 40 // docs/interop/qcow2.txt
	var at [8]byte
	_, err = f.ReadAt(at[:], l1TableOffset)
	Must(t, err)
	var entry [8]byte
	binary.BigEndian.PutUint64(entry[:], 1<<63|1<<40)
	_, err = f.WriteAt(entry[:], int64(binary.BigEndian.Uint64(at[:])))
	Must(t, err)
}

// SmallDir is a directory on a file system of 64 KiB, and a way to remove what Fill
// has put there.
func SmallDir(t testing.TB) (dir string, makeRoom func()) {
	t.Helper()
	dir = t.TempDir()
	Must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir, func() { _ = os.Remove(filepath.Join(dir, ballast)) }
}

const ballast = "ballast"

// Fill leaves no byte to spare on the file system of a directory.
func Fill(t testing.TB, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, ballast))
	Must(t, err)
	defer f.Close()
	const most = 16 << 10
	for size := most; size > 0; size /= 2 {
		for {
			if _, err := f.Write(make([]byte, size)); err != nil {
				break
			}
		}
	}
}
