package verify

import (
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// State is what a file of a backup is found to be.
type State string

// The states.
const (
	StateOK         State = "ok"         // its size and its SHA-256 are the manifest's
	StateMissing    State = "missing"    // it is not there
	StateDiffers    State = "differs"    // it has another size or SHA-256
	StateUnreadable State = "unreadable" // it could not be read in full
	StateCorrupt    State = "corrupt"    // it is what was backed up, but damaged as an image
	StateNotRead    State = "not-read"   // the check was interrupted before
)

// Report is the result of a verification.
type Report struct {
	Directory   string     `json:"directory"`             // of the backup
	Host        string     `json:"host"`                  // that it was made on
	OK          bool       `json:"ok"`                    // every instance in it is whole, and none is incomplete
	Interrupted bool       `json:"interrupted,omitempty"` // not all of it was read
	Instances   []Instance `json:"instances"`             // of the manifest
	// Incomplete are the UUIDs of instances of which there are files, and which the manifest
	// does not name: their backup was interrupted, or is under way.
	Incomplete []string `json:"incomplete"`
	// Unnamed are files that the manifest does not name, below the directory: 100 at most.
	Unnamed []string `json:"unnamed"`
	More    int      `json:"more,omitempty"` // how many more there are of them
}

// mostUnnamed is the most files that Report.Unnamed names.
const mostUnnamed = 100

// Instance is one instance of the backup.
type Instance struct {
	UUID   string    `json:"uuid"`           // of the domain, and of Nova's instance
	Domain string    `json:"domain"`         // the name of its libvirt domain
	Name   string    `json:"name,omitempty"` // Nova's display name
	Taken  time.Time `json:"taken"`          // when it was backed up
	OK     bool      `json:"ok"`             // each of its files is
	Files  []File    `json:"files"`          // and its definition
}

// File is one file of an instance.
type File struct {
	Path   string       `json:"path,omitempty"`   // where it belongs; empty for the definition
	Stored string       `json:"stored"`           // where it is, below the directory
	Role   recover.Role `json:"role,omitempty"`   // what it is to its instance
	Size   int64        `json:"size"`             // as found, in bytes
	SHA256 string       `json:"sha256,omitempty"` // as found; empty when it was not read
	State  State        `json:"state"`            // what it is found to be
	Reason string       `json:"reason,omitempty"` // why it is not ok
	// Checked is true for a qcow2 image that qemu-img has checked; Unchecked says why one
	// could not be checked, which is no damage.
	Checked   bool   `json:"checked,omitempty"`
	Unchecked string `json:"unchecked,omitempty"`
}
