package identity_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
)

func TestTwoMountsOfOneDirectoryAreTwo(t *testing.T) {
	dir, again := t.TempDir(), t.TempDir()
	if err := unix.Mount(dir, again, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(again, unix.MNT_DETACH) })
	mount := func(path string) int {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		number, err := identity.Mount(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		return number
	}
	first, once, second := mount(dir), mount(dir), mount(again)
	if first != once || first == second {
		t.Errorf("it is on mount %d, then on %d; where it is mounted again, on %d", first, once, second)
	}
}
