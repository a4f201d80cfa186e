package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// Note is what the guard has noted of a file that it holds, in holds.json.
type Note struct {
	Device  uint64       `json:"device"`
	Inode   uint64       `json:"inode"`
	Birth   string       `json:"birth"`
	Path    string       `json:"path"` // the last name that was seen
	Owners  []string     `json:"owners"`
	Role    recover.Role `json:"role"`
	Deleted time.Time    `json:"deleted"` // zero while it has a name
	Needed  bool         `json:"needed"`  // an instance that exists had lost it
	Belongs string       `json:"belongs"` // the path that a definition gave it; empty for none
	Retired []string     `json:"retired"` // the owners that were undefined after the deletion
}

// Identity identifies the held file, during the boot of the note.
func (n Note) Identity() recover.Inode {
	return recover.Inode{Device: n.Device, Inode: n.Inode, Birth: n.Birth}
}

// IsLostBy is true for a deleted file that the instance needs, or may need: what an instance that
// exists has lost, and a disk for which nothing says yet that it was an orderly change.
func (n Note) IsLostBy(uuid string) bool {
	if n.Deleted.IsZero() || !slices.Contains(n.Owners, uuid) {
		return false
	}
	switch n.Role {
	case recover.RoleConsoleLog, recover.RoleDiskInfo:
		return false
	case recover.RoleDisk, recover.RoleNVRAM:
		return n.Needed || !slices.Contains(n.Retired, uuid)
	}
	return n.Needed && !slices.Contains(n.Retired, uuid)
}

// maxHolds is more than a million files take, in bytes.
const maxHolds = 1 << 30

// HoldsFile returns the path of what the guard has noted of the files that it holds.
func (d Dir) HoldsFile() string { return d.File("holds.json") }

// ReadHolds returns the content of HoldsFile. fs.ErrNotExist where no guard has ever run, and the
// other errors of plainfile.Read.
func (d Dir) ReadHolds() ([]byte, error) {
	return plainfile.Read(d.HoldsFile(), plainfile.Rules{Most: maxHolds, Ours: true})
}

// Notes returns what the guard has noted of the files that it holds, without asking it; none of
// another boot than this one, whose ID the caller gives, and none where no guard has ever run.
func (d Dir) Notes(bootID string) ([]Note, error) {
	data, err := d.ReadHolds()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all struct {
		BootID string `json:"boot_id"`
		Holds  []Note `json:"holds"`
	}
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("the guard's list of the files that it holds (%s): %w", d.HoldsFile(), err)
	}
	if all.BootID != bootID {
		return nil, nil
	}
	return all.Holds, nil
}
