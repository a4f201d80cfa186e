package recover

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stateDir is /var/lib/os-rescue: the runs with their journals, the lock that
// lets one run at a time through, and the keeper's socket. Only root gets in.
type stateDir string

// make creates the directory, 0700, and mends the mode of one that is there.
func (s stateDir) make() error {
	for _, dir := range []string{string(s), s.runs()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("%w: state directory: %w", ErrUnusable, err)
		}
		if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory
			return fmt.Errorf("%w: state directory: %w", ErrUnusable, err)
		}
	}
	return nil
}

func (s stateDir) runs() string            { return filepath.Join(string(s), "runs") }
func (s stateDir) run(id string) string    { return filepath.Join(s.runs(), id) }
func (s stateDir) lockFile() string        { return filepath.Join(string(s), "lock") }
func (s stateDir) xml(id, u string) string { return filepath.Join(s.run(id), u+".xml") }

// newRun makes the directory of a new run and returns its name, which sorts by time.
func (s stateDir) newRun(now time.Time) (string, error) {
	b := make([]byte, 2)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	id := strings.Replace(now.UTC().Format("20060102-150405.000"), ".", "", 1) + "-" + hex.EncodeToString(b)
	if err := os.Mkdir(s.run(id), 0o700); err != nil {
		return "", fmt.Errorf("%w: a run's directory: %w", ErrUnusable, err)
	}
	return id, syncDir(s.runs())
}

// list returns the names of all runs, oldest first.
func (s stateDir) list() ([]string, error) {
	entries, err := os.ReadDir(s.runs())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the runs: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// find returns the run of that name, or the only one that begins with it.
func (s stateDir) find(prefix string) (string, error) {
	ids, err := s.list()
	if err != nil {
		return "", err
	}
	var match []string
	for _, id := range ids {
		if id == prefix {
			return id, nil
		}
		if strings.HasPrefix(id, prefix) {
			match = append(match, id)
		}
	}
	switch len(match) {
	case 0:
		return "", fmt.Errorf("%w: %q", ErrNoRun, prefix)
	case 1:
		return match[0], nil
	}
	return "", fmt.Errorf("%w: %q fits %s", ErrNoRun, prefix, strings.Join(match, ", "))
}

// lockInfo is what the lock file says of the run that holds it.
type lockInfo struct {
	Run     string    `json:"run"`
	Command Command   `json:"command"`
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
}

// lock lets one run at a time through. The lock belongs to the open file (an OFD
// lock, fcntl(2)), so it ends with its process, however that ends, and can be
// asked for without being taken. ErrBusy names the run that has it.
func (s stateDir) lock(info lockInfo) (*os.File, error) {
	f, err := os.OpenFile(s.lockFile(), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: the lock of the host's runs: %w", ErrUnusable, err)
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &whole); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("%w: the lock of the host's runs: %w", ErrUnusable, err)
		}
		var other lockInfo
		if json.NewDecoder(f).Decode(&other) != nil {
			return nil, fmt.Errorf("%w: it has just begun", ErrBusy)
		}
		return nil, fmt.Errorf("%w: %s %s, process %d, since %s; follow it with: os-rescue status %s",
			ErrBusy, other.Command, other.Run, other.PID, other.Since.Local().Format(time.DateTime), other.Run)
	}
	if err := writeLock(f, info); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unlock ends a lock at once. Closing alone would leave it to a child that was
// forked in this moment and has not come to its exec.
func unlock(f *os.File) {
	none := unix.Flock_t{Type: unix.F_UNLCK}
	_ = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &none)
	f.Close()
}

// running returns the run that holds the lock now, if one does.
func (s stateDir) running() (lockInfo, bool) {
	var info lockInfo
	f, err := os.Open(s.lockFile())
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

// writeFile writes a small file whole or not at all: 0600, fsynced, renamed.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
