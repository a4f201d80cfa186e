package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenFile is a regular file or block device that a process has open.
type OpenFile struct {
	FD     int
	Path   string // the link's text, as the kernel shows it: with " (deleted)"
	Device uint64
	Inode  uint64
	Nlink  uint64
	Block  bool
}

// OpenFiles returns the regular files and block devices that a process has
// open, in no order.
func OpenFiles(pid int) ([]OpenFile, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("lab: open files of process %d: %w", pid, err)
	}
	var files []OpenFile
	for _, entry := range entries {
		link := filepath.Join(dir, entry.Name())
		var st unix.Stat_t
		if err := unix.Stat(link, &st); err != nil {
			continue // closed since
		}
		kind := st.Mode & unix.S_IFMT
		if kind != unix.S_IFREG && kind != unix.S_IFBLK {
			continue
		}
		path, err := os.Readlink(link)
		if err != nil || strings.HasPrefix(path, "/memfd:") {
			continue
		}
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("lab: open files of process %d: %w", pid, err)
		}
		files = append(files, OpenFile{
			FD: fd, Path: path, Device: st.Dev, Inode: st.Ino, Nlink: uint64(st.Nlink), //nolint:unconvert // 32 bits on arm64
			Block: kind == unix.S_IFBLK,
		})
	}
	return files, nil
}

// OpenFiles returns what the instance's QEMU has open under Nova's directory,
// by path without " (deleted)".
func (i *Instance) OpenFiles(t T) map[string]OpenFile {
	t.Helper()
	return openUnder(t, i.QemuPID(), NovaDir)
}

func openUnder(t T, pid int, dir string) map[string]OpenFile {
	t.Helper()
	files, err := OpenFiles(pid)
	if err != nil {
		t.Fatalf("%v", err)
	}
	found := map[string]OpenFile{}
	for _, file := range files {
		if strings.HasPrefix(file.Path, dir+"/") {
			found[strings.TrimSuffix(file.Path, " (deleted)")] = file
		}
	}
	return found
}
