package staging

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/owners"
	"github.com/os-rescue/os-rescue/recover/space"
)

// Directories are the staging directories of one run. They are safe for concurrent
// use.
type Directories struct {
	root     *beneath.Root
	settings recover.Settings
	mu       sync.Mutex
	dirs     map[string]*Directory // by the directory that they are in
}

// NewDirectories returns the staging directories of a run, none of which is made or
// open yet.
func NewDirectories(root *beneath.Root, settings recover.Settings) *Directories {
	return &Directories{root: root, settings: settings, dirs: map[string]*Directory{}}
}

// Directory is one staging directory, open. Only root gets into it, and only the run that
// it belongs to writes in it.
type Directory struct {
	*beneath.Dir
	parent *beneath.Dir
	name   string
}

// parentFor returns the directory in which a file is to be staged: the instances
// directory, which a run makes anew if need be; or, when no name can be moved from there to
// the file's (another file system, or another mount of the same), the nearest directory above
// the file that exists.
func (s *Directories) parentFor(f recover.FilePlan, table *owners.Table) (*beneath.Dir, error) {
	base := s.settings.InstancesPath
	if !recover.IsBelow(f.Path, base) {
		return s.root.Nearest(f.Path)
	}
	dir, _, err := s.root.MkdirAll(base, table.Dir)
	if err != nil {
		return nil, err
	}
	near, err := s.root.Nearest(f.Path)
	if err != nil {
		dir.Close()
		return nil, err
	}
	renames, err := beneath.Renames(dir, near)
	if err == nil && renames {
		near.Close()
		return dir, nil
	}
	dir.Close()
	if err != nil {
		near.Close()
		return nil, err
	}
	return near, nil
}

// ForFile returns the run's staging directory for a file, made if need be: on the mount that
// the file will live on. recover.ErrConflict when somebody else has made one of
// that name.
func (s *Directories) ForFile(run string, f recover.FilePlan, table *owners.Table) (*Directory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parent, err := s.parentFor(f, table)
	if err != nil {
		return nil, fmt.Errorf("find a place to stage %s: %w", f.Path, err)
	}
	if st, ok := s.dirs[parent.Path()]; ok {
		parent.Close()
		return st, nil
	}
	name := recover.StagePrefix + run
	dir, err := parent.Mkdir(name, beneath.Owner{Mode: 0o700})
	if errors.Is(err, fs.ErrExist) {
		dir, err = openOwn(parent, name) // an interrupted run's, taken over
	}
	if err != nil {
		parent.Close()
		return nil, fmt.Errorf("make a place to stage %s: %w", f.Path, err)
	}
	st := &Directory{Dir: dir, parent: parent, name: name}
	s.dirs[parent.Path()] = st
	return st, nil
}

// openOwn opens a staging directory that is there already. The nova user can
// write the directory around it: only one that is root's, and closed, is ours.
func openOwn(parent *beneath.Dir, name string) (*beneath.Dir, error) {
	dir, err := parent.Subdir(name)
	if err != nil {
		return nil, err
	}
	st, err := dir.Info()
	if err == nil && (st.Uid != 0 || st.Mode&0o077 != 0) {
		err = fmt.Errorf("%w: %s belongs to user %d and has mode %#o, so os-rescue did not make it and does not use it: "+
			"look at it, then remove it", recover.ErrConflict, dir.Path(), st.Uid, st.Mode&0o7777)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// Reopen opens the staging directory that a journal names. fs.ErrNotExist when it is gone,
// recover.ErrConflict when it is somebody else's.
func (s *Directories) Reopen(path string) (*Directory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parentPath, name := filepath.Split(path)
	parent, err := s.root.OpenDir(strings.TrimSuffix(parentPath, "/"))
	if err != nil {
		return nil, err
	}
	if st, ok := s.dirs[parent.Path()]; ok {
		parent.Close()
		return st, nil
	}
	dir, err := openOwn(parent, name)
	if err != nil {
		parent.Close()
		return nil, err
	}
	st := &Directory{Dir: dir, parent: parent, name: name}
	s.dirs[parent.Path()] = st
	return st, nil
}

// Clean removes the staging directories that are empty. A file that is
// left in one may be some instance's only proven copy, and stays.
func (s *Directories) Clean() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs error
	for key, st := range s.dirs {
		err := st.parent.RemoveDir(st.name)
		if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			errs = errors.Join(errs, err)
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			st.Close()
			st.parent.Close()
			delete(s.dirs, key)
		}
	}
	return errs
}

// Close closes the directories and leaves them as they are.
func (s *Directories) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, st := range s.dirs {
		st.Close()
		st.parent.Close()
		delete(s.dirs, key)
	}
}

// Publish gives a file of this directory a name in another one, and never replaces what
// has that name: fs.ErrExist.
func (d *Directory) Publish(name string, to *beneath.Dir, as string) error {
	return beneath.Publish(d.Dir, name, to, as)
}

// TakeBack undoes Publish.
func (d *Directory) TakeBack(name string, from *beneath.Dir, as string) error {
	return beneath.Publish(from, as, d.Dir, name)
}

// copiesByClone is true when a copy of the file that is staged here will be a clone
// of it; root is the "/" below which the directory is.
func (d *Directory) copiesByClone(root string, f recover.FilePlan) (bool, error) {
	info, err := d.Info()
	if err != nil || info.Dev != f.Device {
		return false, err
	}
	room, err := d.Statfs()
	return err == nil && space.Clones(filepath.Join(root, d.Path()), room.Magic), err
}
