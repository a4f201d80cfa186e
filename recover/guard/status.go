package guard

import (
	"encoding/json"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// Status is what the guard of this host knows: its last full scan, brought up to date by
// what it has noticed since, and what it holds.
type Status struct {
	// Running is false when no guard runs: then nothing else is set.
	Running bool `json:"running"`
	// Fault says why a guard that runs could not be asked: then only PID is set besides, where
	// that is known.
	Fault   string    `json:"fault,omitempty"`
	PID     int       `json:"pid,omitempty"`    // of the guard's process
	Started time.Time `json:"started,omitzero"` // when the guard began
	// Scanned is when its last full scan ended; zero before the first one.
	Scanned time.Time `json:"scanned,omitzero"`
	// Report is that of the last full scan, with the deletions that were noticed since.
	Report recover.Report `json:"report,omitzero"`
	Held   Held           `json:"held,omitzero"` // sums up what it holds
	// Incidents are the instances that still exist and have lost files, by domain name.
	Incidents []Incident `json:"incidents,omitempty"`
	// SoftDeleted are the UUIDs of instances that miss files and that Nova has as SOFT_DELETED:
	// their owners have deleted them, so that is no incident. What is held stays held.
	SoftDeleted []string `json:"soft_deleted,omitempty"`
	// IncidentsSeen counts those that were noticed since the guard started.
	IncidentsSeen int `json:"incidents_seen,omitempty"`
	// Released counts the deleted files that were let go since it started, by the reason.
	Released map[keeper.ReleaseReason]int `json:"released,omitempty"`
	// Problems are what keeps the guard from its work, one sentence each: libvirt
	// or Nova does not answer, a file system on which nothing can be held, ...
	Problems []string `json:"problems,omitempty"`
}

// Held sums up what the guard holds.
type Held struct {
	Files        int   `json:"files"`         // all of them, deleted or not
	Bytes        int64 `json:"bytes"`         // on disk, holes not counted
	DeletedFiles int   `json:"deleted_files"` // without a name
	DeletedBytes int64 `json:"deleted_bytes"` // what deleting them has not freed
	// NotHeld is how many files and directories of the instances directory, at least, are not
	// held because there are too many that libvirt does not name.
	NotHeld int `json:"not_held,omitempty"`
}

// Status returns what the guard knows and holds, without a new look. PID is not set.
func (g *Guard) Status() Status {
	s := Status{Running: true, Started: g.started, Problems: g.problems.list()}
	s.Held, s.Released = g.holds.sum()
	s.Held.NotHeld = int(g.tree.beyond.Load())
	s.Incidents, s.IncidentsSeen = g.incidents.list()
	s.Report, s.Scanned = g.last.get() // after the incidents: it is no older than they are
	s.SoftDeleted = g.incidents.softDeletedOnes()
	return s
}

// statusParts are Status for a client.
func (g *Guard) statusParts() []json.RawMessage { return splitStatus(g.Status()) }
