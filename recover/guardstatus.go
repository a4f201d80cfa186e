package recover

import (
	"time"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// GuardStatus is what the guard of this host knows: its last full scan, brought
// up to date by what it has noticed since, and what it holds.
type GuardStatus struct {
	Running bool      `json:"running"`
	PID     int       `json:"pid,omitempty"`
	Started time.Time `json:"started,omitzero"`
	// Scanned is when its last full scan ended; zero before the first one.
	Scanned time.Time `json:"scanned,omitzero"`
	Report  Report    `json:"report,omitzero"`
	Held    GuardHeld `json:"held,omitzero"`
	// Incidents are the instances that still exist and have lost files, by domain name.
	Incidents []Incident `json:"incidents,omitempty"`
	// IncidentsSeen counts those that were noticed since the guard started.
	IncidentsSeen int `json:"incidents_seen,omitempty"`
	// Released counts the deleted files that were let go since it started, by ReleaseReason.
	Released map[keeper.ReleaseReason]int `json:"released,omitempty"`
	// Problems are what keeps the guard from its work, one sentence each: libvirt
	// or Nova does not answer, a file system on which nothing can be held, ...
	Problems []string `json:"problems,omitempty"`
}

// GuardHeld sums up what the guard holds.
type GuardHeld struct {
	Files        int   `json:"files"`
	Bytes        int64 `json:"bytes"` // on disk, holes not counted
	DeletedFiles int   `json:"deleted_files"`
	DeletedBytes int64 `json:"deleted_bytes"` // what deleting them has not freed
}

// Incident is an instance whose files were deleted although it exists.
type Incident struct {
	UUID        string    `json:"uuid"`
	Domain      string    `json:"domain"`
	Name        string    `json:"name,omitempty"`
	ProjectID   string    `json:"project_id,omitempty"`
	ProjectName string    `json:"project_name,omitempty"`
	Since       time.Time `json:"since"`
	// Found is the domain's state when the deletion was noticed.
	Found DomainState `json:"found"`
	Paths []string    `json:"paths"`
	Bytes int64       `json:"bytes"` // on disk
	// Locked is true when it is locked in Nova, by the guard or by somebody before.
	Locked bool `json:"locked,omitempty"`
	// Replaced is true when it runs on other files by now, which nobody has proven
	// to have the deleted ones' content: those are still held.
	Replaced bool `json:"replaced,omitempty"`
}
