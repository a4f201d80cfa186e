package recover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
)

// guardDir is the directory in which a guard keeps a record of each instance. It
// lies in the state directory: a run finds the records whether or not a guard runs.
type guardDir string

// guardDirIn returns the guard's directory of a state directory. It need not exist.
func guardDirIn(stateDir string) guardDir { return guardDir(filepath.Join(stateDir, "guard")) }

// create makes the directory, 0700, in a state directory that exists. ErrUnusable.
func (d guardDir) create() error {
	if err := os.Mkdir(string(d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return nil
}

// file returns the path of a file of the guard's own in the directory.
func (d guardDir) file(name string) string { return filepath.Join(string(d), name) }

func (d guardDir) recordFile(uuid string) string { return d.file(uuid + ".json") }

// records returns every record, by UUID; none where no guard has ever run.
// One that can't be read is an error of its own beside the others.
func (d guardDir) records() (map[string]guardRecord, error) {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	records := map[string]guardRecord{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || uuid.Validate(id) != nil {
			continue
		}
		data, rerr := os.ReadFile(d.recordFile(id))
		var r guardRecord
		if rerr == nil {
			r, rerr = parseGuardRecord(id, data)
		}
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("the guard's record %s: %w", d.recordFile(id), rerr))
			continue
		}
		if rerr == nil {
			records[id] = r
		}
	}
	return records, err
}

// definition returns the XML of a domain in its record; empty when there is none.
func (d guardDir) definition(uuid string) (string, error) {
	data, err := os.ReadFile(d.recordFile(uuid))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	r, err := parseGuardRecord(uuid, data)
	return r.Definition, err
}

// write brings a record to the disk, unless it is there already.
func (d guardDir) write(r guardRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := d.recordFile(r.Domain.UUID)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return writeFile(path, data)
}

// remove deletes an instance's record; none is success.
func (d guardDir) remove(uuid string) error {
	if err := os.Remove(d.recordFile(uuid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
