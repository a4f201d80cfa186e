package recover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

// guardRecord is what the guard knows of an instance beyond its files: what
// libvirt may forget, and the small files that nobody holds. It lies in the state
// directory, so that a run finds it whether or not a guard runs.
type guardRecord struct {
	// Domain is the domain as it was when it was active last, with its whole
	// chains; as it is, when it has not been seen active.
	Domain Domain `json:"domain"`
	// Definition is its persistent XML, fit for Define. It holds secrets: the
	// file is 0600, and no log has it.
	Definition string `json:"definition,omitempty"`
	// Small are the contents of small files, by path.
	Small map[string]string `json:"small,omitempty"`

	Incident *incidentRecord `json:"incident,omitempty"`
	// Lock is the reason of the guard's own lock in Nova; empty without one.
	Lock string `json:"lock,omitempty"`
	// Gone is since when libvirt does not know the domain; zero while it does.
	Gone time.Time `json:"gone,omitzero"`
}

// incidentRecord is how an instance was when its files were deleted.
type incidentRecord struct {
	Since time.Time   `json:"since"`
	Found DomainState `json:"found"`
}

// maxSmall bounds a small file that is kept: Nova's disk.info has some hundred
// bytes, unrescue.xml some thousand.
const maxSmall = 256 << 10

// unrescueName is where Nova keeps the definition to which a rescued instance
// returns (nova/virt/libvirt/driver.py, rescue and unrescue).
const unrescueName = "unrescue.xml"

// keptNames are the small files of an instance's directory that nobody holds.
func keptNames() []string { return []string{diskInfoName, unrescueName} }

func (s stateDir) guard() string               { return filepath.Join(string(s), "guard") }
func (s stateDir) guardHolds() string          { return filepath.Join(s.guard(), "holds.json") }
func (s stateDir) guardRecord(u string) string { return filepath.Join(s.guard(), u+".json") }

// guardRecords returns every record, by UUID; none where no guard has ever run.
// One that can't be read is an error of its own beside the others.
func (s stateDir) guardRecords() (map[string]guardRecord, error) {
	entries, err := os.ReadDir(s.guard())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	records := map[string]guardRecord{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || uuid.Validate(id) != nil {
			continue
		}
		data, rerr := os.ReadFile(s.guardRecord(id))
		var r guardRecord
		if rerr == nil {
			r, rerr = parseGuardRecord(id, data)
		}
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("the guard's record %s: %w", s.guardRecord(id), rerr))
			continue
		}
		if rerr == nil {
			records[id] = r
		}
	}
	return records, err
}

// guardDefinition returns the definition that a guard has kept of a domain; empty
// when there is none.
func (s stateDir) guardDefinition(uuid string) (string, error) {
	data, err := os.ReadFile(s.guardRecord(uuid))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	r, err := parseGuardRecord(uuid, data)
	return r.Definition, err
}

// parseGuardRecord reads a record, and refuses what a scan could stumble over.
func parseGuardRecord(id string, data []byte) (guardRecord, error) {
	var r guardRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return guardRecord{}, err
	}
	if !strings.EqualFold(r.Domain.UUID, id) {
		return guardRecord{}, fmt.Errorf("it is of instance %q", r.Domain.UUID)
	}
	for _, d := range r.Domain.Disks {
		if len(d.Chain) == 0 {
			return guardRecord{}, fmt.Errorf("its disk %s has no image", d.Target)
		}
	}
	return r, nil
}

// writeGuardRecord keeps a record, unless it is on disk already.
func (s stateDir) writeGuardRecord(r guardRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := s.guardRecord(r.Domain.UUID)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return writeFile(path, data)
}

// remembered is a domain that libvirt has forgotten, as a scan takes it.
func (r guardRecord) remembered() Domain {
	d := r.Domain
	d.State, d.PauseReason, d.PID = StateShutOff, PauseNone, 0
	d.Job, d.BlockJobs = "", nil
	return d
}

// readSmall reads the small files of an instance's directory into the record;
// what is not there any more stays as it was.
func (r *guardRecord) readSmall(dir *beneath.Dir) {
	for _, name := range keptNames() {
		f, err := dir.Open(name, os.O_RDONLY)
		if err != nil {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
		f.Close()
		if err != nil || len(data) == 0 || len(data) > maxSmall {
			continue
		}
		if r.Small == nil {
			r.Small = map[string]string{}
		}
		r.Small[dir.Path()+"/"+name] = string(data)
	}
}

// forget drops a small file that is not due any more: Nova removes unrescue.xml
// when it unrescues.
func (r *guardRecord) forget(name string) {
	for path := range r.Small {
		if filepath.Base(path) == name {
			delete(r.Small, path)
		}
	}
}
