package inventory

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

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/plainfile"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// Dir is the path of the directory in which a guard keeps a record of each instance. It
// lies in the state directory: a run finds the records whether or not a guard runs.
type Dir string

// In returns the directory of the guard's records in a state directory. It need not
// exist.
func In(stateDir string) Dir { return Dir(filepath.Join(stateDir, "guard")) }

// Create makes the directory, 0700, in a state directory that exists. ErrUnusable when it
// can't. An existing one is left as it is.
func (d Dir) Create() error {
	if err := os.Mkdir(string(d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	return nil
}

// File returns the path of a file of the guard's own in the directory.
func (d Dir) File(name string) string { return filepath.Join(string(d), name) }

// RecordFile returns the path of an instance's record. It need not exist.
func (d Dir) RecordFile(uuid string) string { return d.File(uuid + ".json") }

// maxRecord is more than the largest definition that libvirt takes, in bytes.
const maxRecord = 16 << 20

func (d Dir) read(uuid string) ([]byte, error) {
	return plainfile.Read(d.RecordFile(uuid), plainfile.Rules{Most: maxRecord, Ours: true})
}

// Records returns every record, by UUID; none where no guard has ever run. Beside the
// error, which joins what is wrong with each record that can't be read, it returns the
// others.
func (d Dir) Records() (map[string]Record, error) {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	records := map[string]Record{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || uuid.Validate(id) != nil {
			continue
		}
		data, rerr := d.read(id)
		var r Record
		if rerr == nil {
			r, rerr = parse(id, data)
		}
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("the guard's record %s: %w", d.RecordFile(id), rerr))
			continue
		}
		if rerr == nil {
			records[id] = r
		}
	}
	return records, err
}

// Definition returns the XML of a domain in its record, with its secrets; empty when
// there is none.
func (d Dir) Definition(uuid string) (string, error) {
	data, err := d.read(uuid)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	r, err := parse(uuid, data)
	return r.Definition, err
}

// Write brings a record to the disk, whole or not at all, unless it is there already.
func (d Dir) Write(r Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := d.RecordFile(r.Domain.UUID)
	if old, err := d.read(r.Domain.UUID); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return statedir.WriteFile(path, data)
}

// Remove deletes an instance's record; none is success.
func (d Dir) Remove(uuid string) error {
	if err := os.Remove(d.RecordFile(uuid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
