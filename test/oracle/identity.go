package oracle

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/lab"
)

// identity tells one file from every other that there ever was: inode numbers come
// again, on ext4 with the next file; times of birth don't (statx(2)).
type identity struct {
	device uint64
	inode  uint64
	birth  int64 // nanoseconds
}

// openFile is a file of the instances' file system that some process has open.
type openFile struct {
	identity
	pid      int
	fd       int
	nlink    uint32
	writable bool
	link     string // the text of the link in /proc
}

// identify returns the identity of what a path leads to, and its number of names.
func identify(path string) (identity, uint32, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return identity{}, 0, err
	}
	if st.Mask&unix.STATX_BTIME == 0 {
		return identity{}, 0, fmt.Errorf("%s: its file system knows no time of birth", path)
	}
	return identity{
		device: unix.Mkdev(st.Dev_major, st.Dev_minor), inode: st.Ino,
		birth: st.Btime.Sec*1e9 + int64(st.Btime.Nsec),
	}, st.Nlink, nil
}

// openFiles returns the regular files below Nova's directory, or once there, that a
// process has open.
func openFiles(pid int) ([]openFile, error) {
	all, err := lab.OpenFiles(pid)
	if err != nil {
		return nil, err
	}
	var files []openFile
	for _, f := range all {
		path := fmt.Sprintf("/proc/%d/fd/%d", pid, f.FD)
		id, nlink, err := identify(path)
		if err != nil || f.Block {
			continue // closed since, or no file of ours
		}
		flags, err := flagsOf(pid, f.FD)
		if err != nil {
			continue
		}
		files = append(files, openFile{
			identity: id, pid: pid, fd: f.FD, nlink: nlink, link: f.Path,
			writable: flags&unix.O_ACCMODE != unix.O_RDONLY,
		})
	}
	return files, nil
}

// flagsOf returns the flags of a descriptor, proc(5).
func flagsOf(pid, fd int) (int64, error) {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		if text, ok := strings.CutPrefix(line, "flags:"); ok {
			return strconv.ParseInt(strings.TrimSpace(text), 8, 64)
		}
	}
	return 0, fmt.Errorf("fdinfo of descriptor %d has no flags", fd)
}

// processes returns the pids of every process but this one, with what the kernel says
// of its program: the base name of /proc/PID/exe.
func processes() map[int]string {
	found := map[int]string{}
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is right
	for _, link := range links {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		program, err := os.Readlink(link)
		if err != nil {
			continue // it has ended
		}
		found[pid] = filepath.Base(strings.TrimSuffix(program, " (deleted)"))
	}
	return found
}

// heldAnywhere returns the identities of all files that any process has open.
func heldAnywhere() map[identity]bool {
	held := map[identity]bool{}
	for pid := range processes() {
		files, err := openFiles(pid)
		if err != nil {
			continue // it has ended
		}
		for _, f := range files {
			held[f.identity] = true
		}
	}
	return held
}
