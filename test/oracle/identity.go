package oracle

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/lab"
)

// identity tells one file from every other that there ever was.
type identity = bare.Identity

// openFile is a file of the instances' file system that some process has open.
type openFile struct {
	identity
	pid      int
	fd       int
	nlink    uint32
	writable bool
	link     string // the text of the link in /proc
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
		id, nlink, err := bare.Identify(path)
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
