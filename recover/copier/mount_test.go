package copier_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/lyingfs"
)

// The kinds of file system that a copy is made on.
const (
	xfsReflink   = "xfs with reflink"
	xfsNoReflink = "xfs without reflink"
	ext4         = "ext4"
	ext4Small    = "ext4 with 1 KiB blocks"
	btrfs        = "btrfs"
	tmpfs        = "tmpfs"
	lying        = "lying"
)

var everyKind = []string{xfsReflink, xfsNoReflink, ext4, ext4Small, btrfs, tmpfs, lying}

// mount makes a file system of that kind and returns its mount point.
func mount(t testing.TB, kind string, megabytes int64) (dir string) {
	t.Helper()
	dir, _ = mountImage(t, kind, megabytes)
	return dir
}

// mountImage returns the file behind the loop device too, "" where there is none.
func mountImage(t testing.TB, kind string, megabytes int64) (dir, loopImage string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts file systems: run it as root")
	}
	dir = t.TempDir()
	switch kind {
	case tmpfs:
		run(t, "mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", dir)
	case lying:
		server, err := lyingfs.Mount(dir, t.TempDir(), lyingfs.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Unmount(); err != nil {
				t.Error(err)
			}
		})
		return dir, ""
	default:
		// In memory, so that the test does not wait for the machine's disk to sync.
		images, err := os.MkdirTemp("/dev/shm", "copier-test-*")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(images) })
		loopImage = filepath.Join(images, "image")
		if err := os.WriteFile(loopImage, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(loopImage, megabytes<<20); err != nil {
			t.Fatal(err)
		}
		mkfs := map[string][]string{
			xfsReflink:   {"mkfs.xfs", "-q", "-m", "reflink=1"},
			xfsNoReflink: {"mkfs.xfs", "-q", "-m", "reflink=0"},
			ext4:         {"mkfs.ext4", "-q", "-b", "4096"},
			ext4Small:    {"mkfs.ext4", "-q", "-b", "1024"},
			btrfs:        {"mkfs.btrfs", "-q"},
		}[kind]
		run(t, mkfs[0], append(mkfs[1:], loopImage)...)
		run(t, "mount", "-o", "loop", loopImage, dir)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir, loopImage
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
