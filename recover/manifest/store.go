package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// ErrUntrusted: somebody else than root, and the user whose word is accepted, could have written
// what is in a backup, or put another one in its place.
var ErrUntrusted = errors.New("others than root can write it")

// Store is the directory of a backup. What is in it is looked up beneath it, follows no
// symlink, and is root's, or another user's whose word is accepted.
type Store struct {
	path string // without symlinks
	root *beneath.Root
	uid  uint32 // the other user's; 0 when only root's word counts
}

// Open opens the backup in dir, an absolute path. owner is the name of a user whose word is
// accepted as root's is, or "+" and a number; empty for none. ErrNoBackup when there is no
// such directory or user, ErrUntrusted when dir or a directory above it is not theirs alone.
func Open(dir, owner string) (*Store, error) {
	s, err := newStore(dir, owner)
	if err != nil {
		return nil, err
	}
	if s.path, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("%w in %s: %w", ErrNoBackup, dir, err)
	}
	if err := s.trustPath(dir); err != nil {
		return nil, s.unused(dir, err)
	}
	if s.root, err = beneath.OpenRoot(s.path); err != nil {
		return nil, fmt.Errorf("%w in %s: %w", ErrNoBackup, dir, err)
	}
	return s, nil
}

// Trusted returns nil when a backup can be made in dir, which need not exist, and be used later:
// the errors of Open.
func Trusted(dir, owner string) error {
	s, err := newStore(dir, owner)
	if err != nil {
		return err
	}
	if err := s.trustPath(dir); err != nil {
		return s.unused(dir, err)
	}
	return nil
}

func newStore(dir, owner string) (*Store, error) {
	s := &Store{path: dir}
	if owner == "" {
		return s, nil
	}
	host, err := beneath.OpenRoot("/")
	if err != nil {
		return nil, err
	}
	defer host.Close()
	if s.uid, err = host.LookupUser(owner); err != nil {
		return nil, fmt.Errorf("%w in %s: --accept-owner: %w", ErrNoBackup, dir, err)
	}
	return s, nil
}

func (s *Store) unused(dir string, err error) error {
	return fmt.Errorf("the backup in %s is not used: %w", dir, err)
}

// Close closes the directory. Files that were opened stay open.
func (s *Store) Close() { s.root.Close() }

// trustPath looks at a directory and at every one above it.
func (s *Store) trustPath(path string) error { return plainfile.Along(path, s.trust) }

func (s *Store) trust(path string, uid, mode uint32) error {
	accepted := "root"
	if s.uid != 0 {
		accepted = fmt.Sprintf("root or %d", s.uid)
	}
	switch {
	case uid != 0 && uid != s.uid:
		return fmt.Errorf("%w: %s belongs to the user %d, not to %s: what is in it may be anything. "+
			"Where it can't be root's, --accept-owner takes that user's word", ErrUntrusted, path, uid, accepted)
	case mode&0o022 != 0:
		return fmt.Errorf("%w: %s has mode %04o: chmod go-w %s", ErrUntrusted, path, mode, path)
	}
	return nil
}

// Manifest reads the manifest. ErrNoBackup when there is none, or none that this version can
// read, ErrUntrusted.
func (s *Store) Manifest() (Manifest, error) {
	f, err := s.File(FileName)
	if err != nil {
		return Manifest{}, s.none(err)
	}
	defer f.Close()
	data, err := plainfile.All(f, mostBytes)
	if err != nil {
		return Manifest{}, s.none(err)
	}
	m, err := parse(data)
	if err != nil {
		return Manifest{}, s.none(err)
	}
	return m, nil
}

func (s *Store) none(err error) error {
	if errors.Is(err, ErrUntrusted) {
		return s.unused(s.path, err)
	}
	return fmt.Errorf("%w in %s: %w", ErrNoBackup, s.path, err)
}

// File opens a regular file of the backup for reading: stored is its path below the directory.
// The error wraps ErrUntrusted, fs.ErrNotExist, or those of beneath.
func (s *Store) File(stored string) (*os.File, error) {
	if !filepath.IsLocal(stored) {
		return nil, &fs.PathError{Op: "open", Path: stored, Err: fs.ErrInvalid}
	}
	names := strings.Split(filepath.Clean(stored), "/")
	for n := range names {
		dir, err := s.root.OpenDir("/" + strings.Join(names[:n], "/"))
		if err != nil {
			return nil, err
		}
		st, err := dir.Info()
		if err == nil {
			err = s.trust(s.path+dir.Path(), st.Uid, st.Mode&0o7777)
		}
		if err == nil && n == len(names)-1 {
			f, err := s.open(dir, names[n])
			dir.Close()
			return f, err
		}
		dir.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, fs.ErrInvalid // a path has at least one name
}

func (s *Store) open(dir *beneath.Dir, name string) (*os.File, error) {
	f, err := dir.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil {
		err = s.trust(s.path+dir.Path()+"/"+name, st.Uid, st.Mode&0o7777)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Definition returns the XML of a domain, with its secrets: libvirt runs what it names as root.
// So it is not taken from a backup of another user's. ErrUntrusted of one, ErrNoBackup; another
// error when the backup has no definition of that domain.
func (s *Store) Definition(uuid string) (string, error) {
	if s.uid != 0 {
		return "", fmt.Errorf("%w: the definition of %s is not taken from a backup of another user's: define the domain first (virsh define)",
			ErrUntrusted, uuid)
	}
	m, err := s.Manifest()
	if err != nil {
		return "", err
	}
	i, ok := m.Find(uuid)
	if !ok || i.Definition == "" {
		return "", fmt.Errorf("the backup in %s has no definition of %s", s.path, uuid)
	}
	f, err := s.File(i.Definition)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := plainfile.All(f, mostBytes)
	return string(data), err
}
