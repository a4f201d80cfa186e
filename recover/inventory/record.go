package inventory

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
)

// Record is what a guard knows of an instance beyond its files: what libvirt
// may forget, and the small files that nobody holds.
type Record struct {
	// Domain is the domain as it was when it was active last, with its whole
	// chains; as it is, when it has not been seen active.
	Domain recover.Domain `json:"domain"`
	// Definition is its persistent XML, fit for Define. It holds secrets: the
	// file is 0600, and no log has it.
	Definition string `json:"definition,omitempty"`
	// Small are the contents of small files, by path.
	Small map[string]string `json:"small,omitempty"`

	// Incident is the loss of its files that has not ended yet; nil without one.
	Incident *Incident `json:"incident,omitempty"`
	// Lock is the reason of the guard's own lock in Nova; empty without one.
	Lock string `json:"lock,omitempty"`
	// Gone is since when libvirt does not know the domain; zero while it does.
	Gone time.Time `json:"gone,omitzero"`
}

// Incident is how an instance was when its files were deleted.
type Incident struct {
	Since time.Time           `json:"since"` // when the guard saw the first deletion
	Found recover.DomainState `json:"found"` // the state of the domain then
}

// maxSmall bounds the content of a small file in a record: Nova's disk.info has
// some hundred bytes, unrescue.xml some thousand.
const maxSmall = 256 << 10

// UnrescueName is where Nova keeps the definition to which a rescued instance
// returns (nova/virt/libvirt/driver.py, rescue and unrescue).
const UnrescueName = "unrescue.xml"

// IsSmallFile is true for a file of an instance's directory that nobody ever
// holds: its content is in the instance's record.
func IsSmallFile(name string) bool { return slices.Contains(smallFiles(), name) }

func smallFiles() []string { return []string{recover.DiskInfoName, UnrescueName} }

// ReadSmall reads the small files of an instance's directory, by path. One that is
// missing, empty or larger than 256 KiB is left out.
func ReadSmall(dir *beneath.Dir) map[string]string {
	small := map[string]string{}
	for _, name := range smallFiles() {
		f, err := dir.Open(name, os.O_RDONLY)
		if err != nil {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
		f.Close()
		if err != nil || len(data) == 0 || len(data) > maxSmall {
			continue
		}
		small[dir.Path()+"/"+name] = string(data)
	}
	return small
}

// parse reads the record of the instance id, and refuses one that a
// scan could stumble over.
func parse(id string, data []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, err
	}
	if !strings.EqualFold(r.Domain.UUID, id) {
		return Record{}, fmt.Errorf("it is of instance %q", r.Domain.UUID)
	}
	for _, d := range r.Domain.Disks {
		if len(d.Chain) == 0 {
			return Record{}, fmt.Errorf("its disk %s has no image", d.Target)
		}
	}
	return r, nil
}

// AsOff returns the record's domain as a scan takes one that libvirt no longer knows:
// shut off, without jobs.
func (r Record) AsOff() recover.Domain {
	d := r.Domain
	d.State, d.PauseReason, d.PID = recover.StateShutOff, recover.PauseNone, 0
	d.Job, d.BlockJobs = "", nil
	return d
}

// Clone returns a copy that may be changed while somebody reads the original.
func (r Record) Clone() Record {
	r.Small = maps.Clone(r.Small)
	if r.Incident != nil {
		incident := *r.Incident
		r.Incident = &incident
	}
	return r
}

// AddSmall takes in the contents of small files, by path. One that was read before and is
// not among them stays as it was.
func (r *Record) AddSmall(small map[string]string) {
	if r.Small == nil && len(small) > 0 {
		r.Small = map[string]string{}
	}
	maps.Copy(r.Small, small)
}

// DropSmall drops the small files of that name, in whichever directory.
func (r *Record) DropSmall(name string) {
	maps.DeleteFunc(r.Small, func(path, _ string) bool { return filepath.Base(path) == name })
}
