package treelock

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// Lock is a lock on an instances directory. It belongs to its open files.
type Lock struct{ files []*os.File }

// Take takes the lock on the instances directory of the settings, which need not exist. It
// never waits: recover.ErrBusy names the run that has it, its process and its state
// directory. recover.ErrUnusable when it can't be taken.
func Take(settings recover.Settings, info statedir.LockInfo) (*Lock, error) {
	unusable := func(err error) error {
		return fmt.Errorf("%w: the lock of %s: %w", recover.ErrUnusable, settings.InstancesPath, err)
	}
	places, err := places(settings)
	if err != nil {
		return nil, unusable(err)
	}
	dir, err := makeDir(settings.RunDir)
	if err != nil {
		return nil, unusable(err)
	}
	info.StateDir = settings.StateDir
	l := &Lock{}
	for _, place := range places {
		f, err := statedir.LockFile(filepath.Join(dir, place+".lock"), info)
		if err != nil {
			l.Release()
			return nil, busy(settings, err)
		}
		l.files = append(l.files, f)
	}
	return l, nil
}

// busy says whose the lock is, and how that run is followed.
func busy(settings recover.Settings, err error) error {
	var other *statedir.BusyError
	if !errors.As(err, &other) || !other.Known {
		return err
	}
	status := "os-rescue status " + other.Info.Run
	if dir := other.Info.StateDir; dir != settings.StateDir {
		status = fmt.Sprintf("OS_RESCUE_STATE_DIR=%s %s", dir, status)
	}
	return fmt.Errorf("%w: %s %s, process %d, since %s, has the instances directory %s, and %s as its state directory: "+
		"wait for its end, or follow it with: %s", recover.ErrBusy, other.Info.Command, other.Info.Run, other.Info.PID,
		other.Info.Since.Local().Format(time.DateTime), settings.InstancesPath, other.Info.StateDir, status)
}

// Adopt returns the lock that another process has taken and shares by these files.
func Adopt(files []*os.File) *Lock { return &Lock{files} }

// Files are what holds the lock, for a process that is to share it.
func (l *Lock) Files() []*os.File { return l.files }

// SetHolder writes who has the lock now. recover.ErrUnusable when it can't be written.
func (l *Lock) SetHolder(settings recover.Settings, info statedir.LockInfo) error {
	info.StateDir = settings.StateDir
	for _, f := range l.files {
		if err := statedir.WriteLock(f, info); err != nil {
			return err
		}
	}
	return nil
}

// Release lets the lock go, also for those that share it. It may be called twice, and of nil.
func (l *Lock) Release() {
	if l == nil {
		return
	}
	for _, f := range l.files {
		statedir.Unlock(f)
	}
	l.files = nil
}

// makeDir makes the directory of the locks in the host's /run, and returns its path.
func makeDir(name string) (string, error) {
	var errs error
	for _, root := range []string{"/proc/1/root", "/"} {
		dir := filepath.Join(root, name)
		err := os.Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		if err == nil {
			err = unix.Access(dir, unix.W_OK)
		}
		if err == nil {
			return dir, nil
		}
		errs = errors.Join(errs, &fs.PathError{Op: "make", Path: dir, Err: err})
	}
	return "", errs
}

// tries bounds how often the places are looked for while somebody removes directories.
const tries = 10

// places returns the places of the instances directory as names, in order.
func places(settings recover.Settings) (names []string, err error) {
	root, err := beneath.OpenRoot(settings.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for range tries {
		if names, err = look(root, settings.InstancesPath); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	slices.Sort(names)
	return names, err
}

func look(root *beneath.Root, path string) (names []string, err error) {
	dir, below, err := nearest(root, path)
	if err != nil {
		return nil, err
	}
	defer func() { dir.Close() }()
	for {
		at, err := dir.Info()
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(at.Inode().Key() + "/" + below))
		names = append(names, hex.EncodeToString(sum[:16]))
		if dir.Path() == "/" {
			return names, nil
		}
		above, err := root.OpenDir(filepath.Dir(dir.Path()))
		if err != nil {
			return nil, err
		}
		same, err := beneath.SameMount(above, dir)
		below = filepath.Join(filepath.Base(dir.Path()), below)
		dir.Close()
		dir = above
		if err != nil || !same {
			return names, err
		}
	}
}

// nearest opens the directory of that path, or the nearest above it that can be opened, with
// the names that lead on from there.
func nearest(root *beneath.Root, path string) (dir *beneath.Dir, below string, err error) {
	for {
		dir, err = root.OpenDir(path)
		if err == nil || path == "/" {
			return dir, below, err
		}
		below = filepath.Join(filepath.Base(path), below)
		path = filepath.Dir(path)
	}
}
