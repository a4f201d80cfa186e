package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// LockInfo is the content of the lock file: the run that holds the lock.
type LockInfo struct {
	Run     string          `json:"run"`     // the run's name
	Command recover.Command `json:"command"` // that of the run, CommandResume or CommandUndo
	PID     int             `json:"pid"`     // of the process that works on it
	Since   time.Time       `json:"since"`   // when that process took the lock
	// StateDir is that of the run; empty in the lock of a state directory.
	StateDir string `json:"state_dir,omitempty"`
}

// BusyError is a lock that another run has. errors.Is finds recover.ErrBusy in it.
type BusyError struct {
	Info  LockInfo
	Known bool // false while the other one has not written its Info yet
}

func (e *BusyError) Error() string {
	if !e.Known {
		return fmt.Sprintf("%v: it has just begun; see it with: os-rescue status", recover.ErrBusy)
	}
	return fmt.Sprintf("%v: %s %s, process %d, since %s; follow it with: os-rescue status %s",
		recover.ErrBusy, e.Info.Command, e.Info.Run, e.Info.PID, e.Info.Since.Local().Format(time.DateTime), e.Info.Run)
}

// Unwrap makes errors.Is(err, recover.ErrBusy) true.
func (e *BusyError) Unwrap() error { return recover.ErrBusy }

// Lock takes the host's lock, which only one run at a time can hold, and returns the
// file that holds it. A *BusyError names the run that holds it.
func (s Dir) Lock(info LockInfo) (*os.File, error) { return LockFile(s.lockFile(), info) }

// LockFile takes a lock of runs that is the file of that path. It is an OFD lock (fcntl(2)):
// it ends with the last process that has the file open, however that process ends, and others
// can query it without taking it. A *BusyError names the run that holds it;
// recover.ErrUnusable when the file can't be used.
func LockFile(path string, info LockInfo) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: the lock of the host's runs: %w", recover.ErrUnusable, err)
	}
	exclusive := unix.Flock_t{Type: unix.F_WRLCK} // of the whole file
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &exclusive); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("%w: the lock of the host's runs: %w", recover.ErrUnusable, err)
		}
		var other LockInfo
		known := json.NewDecoder(f).Decode(&other) == nil
		return nil, &BusyError{Info: other, Known: known}
	}
	if err := WriteLock(f, info); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Unlock releases the lock at once and closes its file. Closing alone would leave the
// lock to a child that was just forked and has not reached its exec.
func Unlock(f *os.File) {
	none := unix.Flock_t{Type: unix.F_UNLCK}
	_ = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &none)
	f.Close()
}

// Running returns the run that holds the lock now. ok is false when none does, or when
// the lock file does not tell which.
func (s Dir) Running() (info LockInfo, ok bool) {
	f, err := plainfile.Open(s.lockFile(), plainfile.Rules{})
	if err != nil {
		return info, false
	}
	defer f.Close()
	query := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &query); err != nil || query.Type == unix.F_UNLCK {
		return info, false
	}
	err = json.NewDecoder(f).Decode(&info)
	return info, err == nil
}

// The commands of the lock's holder that no run has of its own.
const (
	CommandResume recover.Command = "resume" // a run is finished
	CommandUndo   recover.Command = "undo"   // a killed run is undone
)

// WriteLock writes into the lock file, which Lock has returned, who holds the lock.
// ErrUnusable when it can't be written.
func WriteLock(f *os.File, info LockInfo) error {
	data, err := json.Marshal(info)
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(append(data, '\n'), 0)
	}
	if err != nil {
		return fmt.Errorf("%w: the lock of the host's runs: %w", recover.ErrUnusable, err)
	}
	return nil
}
