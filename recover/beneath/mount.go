package beneath

import (
	"os"

	"github.com/os-rescue/os-rescue/recover/identity"
)

// Renames reports whether a name can be moved from one directory to another: they are on one
// file system, and were reached through one mount of it.
func Renames(from, to *Dir) (bool, error) {
	a, err := from.Info()
	if err != nil {
		return false, err
	}
	b, err := to.Info()
	if err != nil || a.Dev != b.Dev {
		return false, err
	}
	return SameMount(from, to)
}

// SameMount reports whether two directories were reached through one mount.
func SameMount(a, b *Dir) (bool, error) { return sameMount(a.fd, b.fd) }

// HasMounted reports whether a file that was opened by its name in the directory is mounted
// there: no such name can be moved or removed (EBUSY).
func HasMounted(dir *Dir, f *os.File) (bool, error) {
	same, err := sameMount(dir.fd, int(f.Fd()))
	return !same && err == nil, err
}

func sameMount(a, b int) (bool, error) {
	one, err := identity.Mount(a)
	if err != nil {
		return false, err
	}
	two, err := identity.Mount(b)
	return one == two, err
}
