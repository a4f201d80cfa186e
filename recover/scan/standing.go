package scan

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// standing is what stands in the directory of an instance without a domain: what Nova will
// define it with, backing files first.
type standing struct {
	root       procfs.Root
	dir        string // the instance's
	cache      string // Nova's image cache
	bases, own []recover.File
	doubts     []string // why it can't be said that all of it is there, one sentence each
}

// addTo puts what stands beside files that are held for the instance, each once.
func (s standing) addTo(held []recover.File) []recover.File {
	known := func(f recover.File) bool {
		return slices.ContainsFunc(held, func(h recover.File) bool { return h.Path == f.Path })
	}
	return slices.Concat([]recover.File{}, slices.DeleteFunc(s.bases, known), held, slices.DeleteFunc(s.own, known))
}

func (s *standing) doubt(format string, args ...any) {
	s.doubts = append(s.doubts, fmt.Sprintf(format, args...))
}

// isNovaDisk is true for the names that Nova gives the disks of an instance
// (nova/virt/libvirt/blockinfo.py and driver.py).
func isNovaDisk(name string) bool {
	return slices.Contains([]string{"disk", "disk.config", "disk.swap", "disk.local"}, name) ||
		strings.HasPrefix(name, "disk.eph") && strings.Trim(name[len("disk.eph"):], "0123456789") == ""
}

// most bounds how many names of a directory, and bytes of a disk.info, are read: the nova
// user can write them.
const mostNames, mostInfo = 1000, 256 << 10

// standingOf looks at an instance's directory below instancesPath. A disk is expected there
// unless the instance was booted from a volume.
func standingOf(root procfs.Root, instancesPath string, server recover.Server) standing {
	dir := filepath.Join(instancesPath, server.UUID)
	s := standing{root: root, dir: dir, cache: filepath.Join(instancesPath, "_base")}
	names := map[string]bool{}
	if !server.FromVolume {
		names["disk"] = true
	}
	found, err := root.Names(dir, mostNames)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.doubt("%s can't be read: %v", dir, err)
	}
	formats := s.formats()
	for name := range formats {
		if !strings.Contains(name, "rescue") && !slices.Contains(found, name) && name != "disk" {
			// disk.info keeps entries of disks that Nova has removed.
			s.doubt("%s names %s/%s, which is not there", recover.DiskInfoName, dir, name)
		}
	}
	for _, name := range found {
		if isNovaDisk(name) {
			names[name] = true
		}
	}
	for name := range names {
		f := recover.File{Path: filepath.Join(dir, name), Role: recover.RoleDisk, Format: formats[name], Writable: true,
			Holders: []recover.Holder{}}
		if name == "disk.config" {
			f.Role, f.Writable = recover.RoleConfigDrive, false
		}
		s.own = append(s.own, f)
		s.inspect(f)
	}
	slices.SortFunc(s.own, func(a, b recover.File) int { return strings.Compare(a.Path, b.Path) })
	return s
}

// formats returns the formats that disk.info has, by the names of the files beside it.
func (s *standing) formats() map[string]string {
	f, err := s.root.Open(filepath.Join(s.dir, recover.DiskInfoName))
	if err != nil {
		return nil // Nova makes it anew
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, mostInfo))
	var formats map[string]string
	if err == nil {
		formats, err = parseDiskInfo(data, s.dir)
	}
	if err != nil {
		s.doubt("%s can't be read: %v", f.Name(), err)
	}
	return formats
}

// parseDiskInfo returns the formats of a disk.info, by the names of the disks in a directory.
func parseDiskInfo(data []byte, dir string) (map[string]string, error) {
	byPath := map[string]string{}
	if err := json.Unmarshal(data, &byPath); err != nil {
		return nil, err
	}
	formats := map[string]string{}
	for path, format := range byPath {
		if filepath.Dir(path) == dir {
			formats[filepath.Base(path)] = format
		}
	}
	return formats, nil
}

// inspect looks whether a disk that stands there can be what Nova will start from: a
// regular file, and its backing file one of Nova's image cache. No other name of a header
// is followed. One that is missing is for classify.
func (s *standing) inspect(f recover.File) {
	st, err := s.root.Lstat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		s.doubt("%s can't be looked at: %v", f.Path, err)
		return
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		s.doubt("%s is no regular file", f.Path)
		return
	case st.Size == 0:
		s.doubt("%s is empty", f.Path)
		return
	case f.Format == "raw" || f.Role == recover.RoleConfigDrive:
		return // what looks like a header in there is the guest's
	}
	header, err := s.header(f.Path, st.Size)
	switch {
	case errors.Is(err, qcow2.ErrNotQcow2) && f.Format != "qcow2":
		return
	case err != nil:
		s.doubt("%s should be a qcow2 image: %v", f.Path, err)
		return
	case header.ExternalData:
		s.doubt("%s keeps its data in another file", f.Path)
		return
	case header.BackingFile == "":
		return
	}
	base := header.BackingFile
	if !filepath.IsAbs(base) {
		base = filepath.Join(s.dir, base)
	}
	base = filepath.Clean(base)
	if filepath.Dir(base) != s.cache || !isCachedName(filepath.Base(base)) {
		s.doubt("%s has a backing file outside Nova's image cache, which is not looked at: %q", f.Path, header.BackingFile)
		return
	}
	if st, err := s.root.Lstat(base); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		s.doubt("%s is no regular file", base)
	}
	if !slices.ContainsFunc(s.bases, func(b recover.File) bool { return b.Path == base }) {
		s.bases = append(s.bases, recover.File{Path: base, Role: recover.RoleBacking, Holders: []recover.Holder{}})
	}
}

// header reads the header of the image at path, of size bytes.
func (s *standing) header(path string, size int64) (qcow2.Header, error) {
	f, err := s.root.Open(path)
	if err != nil {
		return qcow2.Header{}, err
	}
	defer f.Close()
	return qcow2.ParseHeader(qcow2.Aligned{File: f}, size)
}
