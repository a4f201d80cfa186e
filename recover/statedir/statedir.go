package statedir

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// Dir is the path of the state directory, /var/lib/os-rescue. It contains the runs
// with their journals, the lock that only one run at a time can hold, the keeper's socket
// and what a guard keeps. Only root can enter it.
type Dir string

// Check returns nil when nobody but root can write the directory, or put another in its place;
// it need not exist. ErrUnusable otherwise, and for a symlink: who could write there would say
// what runs have done, and which definition a domain has.
func (s Dir) Check() error {
	for _, dir := range []string{string(s), s.runs()} {
		if err := plainfile.OursAlong(dir); err != nil {
			return fmt.Errorf("%w: the state directory %s is not used: %w", recover.ErrUnusable, string(s), err)
		}
	}
	return nil
}

// Make creates the directory with mode 0700, or sets that mode on an existing one.
// ErrUnusable when it can't, and as Check.
func (s Dir) Make() error {
	if err := s.Check(); err != nil {
		return err
	}
	for _, dir := range []string{string(s), s.runs()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("%w: state directory: %w", recover.ErrUnusable, err)
		}
		if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory
			return fmt.Errorf("%w: state directory: %w", recover.ErrUnusable, err)
		}
	}
	return s.Check() // somebody else may have made it first
}

func (s Dir) runs() string     { return filepath.Join(string(s), "runs") }
func (s Dir) lockFile() string { return filepath.Join(string(s), "lock") }

// Run returns the path of the directory of the run of that name.
func (s Dir) Run(id string) string { return filepath.Join(s.runs(), id) }

// Definition returns the path at which a run stores the XML of a domain that it destroys.
func (s Dir) Definition(id, uuid string) string { return filepath.Join(s.Run(id), uuid+".xml") }

// NewRun makes the directory of a new run and returns the run's name. Names sort by
// time. ErrUnusable when the directory can't be made.
func (s Dir) NewRun(now time.Time) (string, error) {
	b := make([]byte, 2)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	id := strings.Replace(now.UTC().Format("20060102-150405.000"), ".", "", 1) + "-" + hex.EncodeToString(b)
	if err := os.Mkdir(s.Run(id), 0o700); err != nil {
		return "", fmt.Errorf("%w: a run's directory: %w", recover.ErrUnusable, err)
	}
	return id, SyncDir(s.runs())
}

// List returns the names of all runs, oldest first.
func (s Dir) List() ([]string, error) {
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

// Find returns the name of the run with that name, or of the only run whose name begins
// with it. ErrNoRun when there is none, or more than one.
func (s Dir) Find(prefix string) (string, error) {
	ids, err := s.List()
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
		return "", fmt.Errorf("%w: %q", recover.ErrNoRun, prefix)
	case 1:
		return match[0], nil
	}
	return "", fmt.Errorf("%w: several runs begin with %q: %s", recover.ErrNoRun, prefix, strings.Join(match, ", "))
}
