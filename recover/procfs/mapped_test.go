package procfs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/identity"
)

func TestOnlyAFileThatAProcessSharesItsMemoryWithIsMapped(t *testing.T) {
	for what, flags := range map[string]int{"shared": unix.MAP_SHARED, "private": unix.MAP_PRIVATE, "only open": 0} {
		dir := "/dev/shm" // a device number that maps and stat(2) agree on
		f, err := os.CreateTemp(dir, "mapped")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(1 << 16); err != nil {
			t.Fatal(err)
		}
		if flags != 0 {
			memory, err := unix.Mmap(int(f.Fd()), 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, flags)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Munmap(memory) }()
		}
		if err := os.Remove(filepath.Join(dir, filepath.Base(f.Name()))); err != nil {
			t.Fatal(err)
		}
		st, err := identity.OfFile(f)
		if err != nil {
			t.Fatal(err)
		}
		mapped, err := Mapped(Dir, os.Getpid())
		if err != nil || mapped[st.Inode().Unborn()] != (what == "shared") {
			t.Errorf("%s: mapped is %v, %v", what, mapped[st.Inode().Unborn()], err)
		}
	}
}
