package guard

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/inventory"
)

// treeFile is a regular file below the instances directory.
type treeFile struct {
	path  string
	owner string // the instance whose directory it is in; empty for a cached image
	ofRun bool   // in a run's staging directory
	inode recover.Inode
}

// treeWalk is one walk through the instances directory, beneath a handle, no link
// followed: the nova user can write there.
type treeWalk struct {
	dirs    []string // every directory that was walked, to be watched
	subdirs int      // how many of them are in the directory of the present instance
	names   int      // how many more names are looked at
	passed  func(path string, isOver bool)
	// visit is called for each file with its directory and name, while that is open.
	visit func(f treeFile, dir *beneath.Dir, name string)
}

// maxDepth bounds the walk: Nova makes no directory in an instance's.
const maxDepth = 3

// walkTree visits the instances' files and the cached images, and returns every
// directory that it walked. A tree that is not there is an empty one. It looks at no more
// names than it may (bounds.go), and calls passed for each directory of which it leaves some, and
// whether that has more than its own bound;
// the directories of instances that isKnown come first. The error is of what could not be
// walked; the rest was.
func walkTree(root *beneath.Root, instancesPath string, isKnown func(uuid string) bool,
	visit func(treeFile, *beneath.Dir, string), passed func(path string, isOver bool),
) (dirs []string, err error) {
	top, err := root.OpenDir(instancesPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer top.Close()
	w := &treeWalk{dirs: []string{instancesPath}, visit: visit, passed: passed, names: mostNames}
	names, err := w.namesOf(top, mostInTop)
	if err != nil {
		return w.dirs, err
	}
	first := func(name string) bool { return name == "_base" || isOfRun(name) || isKnown(ownerOfDir(name)) }
	names = slices.Concat(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !first(n) }), slices.DeleteFunc(names, first))
	var errs error
	for _, name := range names {
		owner, ofRun := ownerOfDir(name), isOfRun(name)
		if owner == "" && name != "_base" && !ofRun {
			continue
		}
		if len(w.dirs) >= mostDirs || w.names == 0 {
			passed(instancesPath, false)
			break
		}
		w.subdirs = 0
		dir, err := top.Subdir(name)
		if err == nil {
			if !ofRun || isClosed(dir) {
				err = w.walk(dir, owner, ofRun, 1)
			}
			dir.Close()
		}
		if err != nil && !vanished(err) {
			errs = errors.Join(errs, err)
		}
	}
	return w.dirs, errs
}

func (w *treeWalk) walk(dir *beneath.Dir, owner string, ofRun bool, depth int) error {
	w.dirs = append(w.dirs, dir.Path())
	most := mostInDir
	if owner == "" {
		most = mostInBase
	}
	names, err := w.namesOf(dir, most)
	if err != nil {
		return err
	}
	var errs error
	for _, name := range names {
		st, err := dir.Stat(name)
		switch {
		case err != nil:
		case st.Mode&unix.S_IFMT == unix.S_IFREG:
			if !isToHold(owner, name) {
				continue
			}
			w.visit(treeFile{path: dir.Path() + "/" + name, owner: owner, ofRun: ofRun, inode: st.Inode()}, dir, name)
		case st.Mode&unix.S_IFMT == unix.S_IFDIR && depth < maxDepth && owner != "":
			if w.subdirs++; w.subdirs > mostSubdirs || len(w.dirs) >= mostDirs {
				w.passed(dir.Path()+"/"+name, w.subdirs > mostSubdirs)
				continue
			}
			var sub *beneath.Dir
			if sub, err = dir.Subdir(name); err == nil {
				err = w.walk(sub, owner, ofRun || isOfRun(name) && isClosed(sub), depth+1)
				sub.Close()
			}
		}
		if err != nil && !vanished(err) {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

// namesOf returns the names in a directory: no more than the most, nor than may be looked at yet.
func (w *treeWalk) namesOf(dir *beneath.Dir, most int) ([]string, error) {
	may := min(most, w.names)
	if may == 0 {
		w.passed(dir.Path(), false)
		return nil, nil
	}
	names, err := dir.NamesUpTo(may)
	if err == nil && len(names) == may {
		w.passed(dir.Path(), may == most)
	}
	w.names -= len(names)
	return names, err
}

// isToHold is false for an instance's small files, of which the record has the
// content, for a run's own file beside the instance's, and for a cached image that is
// being downloaded: Nova gives it its name when it is whole
// (nova/virt/libvirt/utils.py and images.py: .part, .converted).
func isToHold(owner, name string) bool {
	if owner != "" {
		return !inventory.IsSmallFile(name) && !isOfRun(name)
	}
	return !strings.HasSuffix(name, ".part") && !strings.HasSuffix(name, ".converted")
}

// isOfRun is true for a file that a run makes for itself and removes, as the scratch
// image of a comparison: its deletion is no loss of the instance's.
func isOfRun(name string) bool { return strings.HasPrefix(name, recover.StagePrefix) }

// isClosed is true for a directory that only root can enter: what the nova user calls
// like a run's is none.
func isClosed(dir *beneath.Dir) bool {
	st, err := dir.Info()
	return err == nil && st.Uid == 0 && st.Mode&0o077 == 0
}

// wasOfRun is true for a path in a run's staging directory.
func wasOfRun(path string) bool { return strings.Contains(path, "/"+recover.StagePrefix) }

// vanished is true when the file or directory is gone by now: no trouble.
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
