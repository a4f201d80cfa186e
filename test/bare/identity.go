package bare

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/lab"
)

// Identity tells one file from every other that there ever was: inode numbers come
// again, on ext4 with the next file; times of birth don't (statx(2)).
type Identity struct {
	device uint64
	Inode  uint64
	birth  int64 // nanoseconds
}

// Identify returns the identity of what a path leads to, and its number of names.
func Identify(path string) (Identity, uint32, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return Identity{}, 0, err
	}
	if st.Mask&unix.STATX_BTIME == 0 {
		return Identity{}, 0, fmt.Errorf("%s: its file system knows no time of birth", path)
	}
	return Identity{
		device: unix.Mkdev(st.Dev_major, st.Dev_minor), Inode: st.Ino,
		birth: st.Btime.Sec*1e9 + int64(st.Btime.Nsec),
	}, st.Nlink, nil
}

// Held returns the identities of all files that a process other than this one has open.
func Held() map[Identity]bool {
	held := map[Identity]bool{}
	for pid := range Processes() {
		files, err := lab.OpenFiles(pid)
		if err != nil {
			continue // it has ended
		}
		for _, f := range files {
			if id, _, err := Identify(fmt.Sprintf("/proc/%d/fd/%d", pid, f.FD)); err == nil && !f.Block {
				held[id] = true
			}
		}
	}
	return held
}
