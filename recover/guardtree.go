package recover

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
)

// treeFile is a regular file below the instances directory.
type treeFile struct {
	path  string
	owner string // the instance whose directory it is in; empty for a cached image
	inode inode
	nlink uint64
}

// guardTree is one walk through the instances directory, beneath a handle, no link
// followed: the nova user can write there.
type guardTree struct {
	files []treeFile
	dirs  []string // every directory that was walked, to be watched
	fresh func(treeFile, *beneath.Dir, string)
}

// maxDepth bounds the walk: Nova makes no directory in an instance's.
const maxDepth = 3

// walkTree finds the instances' files and the cached images. fresh is called for
// each with its directory and name, while that is open. A tree that is not there
// is an empty one.
func walkTree(root *beneath.Root, instancesPath string, fresh func(treeFile, *beneath.Dir, string)) (guardTree, error) {
	t := guardTree{fresh: fresh}
	top, err := root.OpenDir(instancesPath)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	defer top.Close()
	t.dirs = append(t.dirs, instancesPath)
	names, err := top.Names()
	if err != nil {
		return t, err
	}
	var errs error
	for _, name := range names {
		owner := ownerOfDir(name)
		if owner == "" && name != "_base" {
			continue
		}
		dir, err := top.Subdir(name)
		if err == nil {
			err = t.walk(dir, owner, 1)
			dir.Close()
		}
		if err != nil && !vanished(err) {
			errs = errors.Join(errs, err)
		}
	}
	return t, errs
}

func (t *guardTree) walk(dir *beneath.Dir, owner string, depth int) error {
	t.dirs = append(t.dirs, dir.Path())
	names, err := dir.Names()
	if err != nil {
		return err
	}
	var errs error
	for _, name := range names {
		st, err := dir.Stat(name)
		switch {
		case err != nil:
		case st.Mode&unix.S_IFMT == unix.S_IFREG:
			// A download in progress: Nova gives it its name when it is whole
			// (nova/virt/libvirt/utils.py and images.py: .part, .converted).
			if owner != "" && slices.Contains(keptNames(), name) {
				continue // of these the content is kept, with the record
			}
			if owner == "" && (strings.HasSuffix(name, ".part") || strings.HasSuffix(name, ".converted")) {
				continue
			}
			f := treeFile{path: dir.Path() + "/" + name, owner: owner, inode: inode{st.Dev, st.Ino}, nlink: uint64(st.Nlink)} //nolint:unconvert // 32 bits on arm64
			t.files = append(t.files, f)
			t.fresh(f, dir, name)
		case st.Mode&unix.S_IFMT == unix.S_IFDIR && depth < maxDepth && owner != "":
			var sub *beneath.Dir
			if sub, err = dir.Subdir(name); err == nil {
				err = t.walk(sub, owner, depth+1)
				sub.Close()
			}
		}
		if err != nil && !vanished(err) {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

// vanished is true when what was to be looked at is gone: no trouble.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, beneath.ErrSymlink)
}

// ownerOfDir returns the instance that a directory below the instances directory
// belongs to, lower case: UUID, and what Nova makes of it for a while, UUID_resize
// and UUID_del (nova/virt/libvirt/driver.py); empty for others.
func ownerOfDir(name string) string {
	id, _, _ := strings.Cut(name, "_")
	if len(id) != 36 || uuid.Validate(id) != nil {
		return ""
	}
	return strings.ToLower(id)
}

// openTreeFile opens a file to be held: for reading alone, with O_DIRECT where a
// buffered read may lie and the file system has it, and no lock.
func openTreeFile(dir *beneath.Dir, name string) (*os.File, error) {
	f, err := dir.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if _, coherent, err := copier.Coherent(f); err != nil || coherent {
		return f, err
	}
	if direct, err := dir.Open(name, os.O_RDONLY|unix.O_DIRECT); err == nil {
		f.Close()
		return direct, nil
	}
	return f, nil
}
