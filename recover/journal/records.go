package journal

import (
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/identity"
)

// Header is the data of a journal's first record, which describes the run.
type Header struct {
	Run     string          `json:"run"`     // its name
	Command recover.Command `json:"command"` // what the run does
	Mode    recover.Mode    `json:"mode"`    // that was asked for
	Host    string          `json:"host"`    // the compute host that the run is on
	BootID  string          `json:"boot_id"` // of the boot in which the run began
	PID     int             `json:"pid"`     // of the process that began it
	Options recover.Options `json:"options"` // what the operator asked for
}

// HeaderOf returns the data of a journal's first record, which must be there. The error
// means that it can't be decoded.
func HeaderOf(records []Record) (Header, error) {
	var head Header
	err := records[0].decode(&head)
	return head, err
}

// End is the data of a journal's last record, if its run came to an end.
type End struct {
	// Interrupted is true when the run was asked to stop, and left instances undone.
	Interrupted bool `json:"interrupted,omitempty"`
	// Abandoned is true when a person has ended the run before it was done.
	Abandoned bool `json:"abandoned,omitempty"`
}

// EndOf returns how a run ended. ok is false unless its end is its last record: it was
// killed, or goes on. The error means that the record can't be decoded.
func EndOf(records []Record) (end End, ok bool, err error) {
	if !isEnded(records) {
		return End{}, false, nil
	}
	err = records[len(records)-1].decode(&end)
	return end, true, err
}

// isEnded is true for the records of a run that came to its end.
func isEnded(records []Record) bool {
	n := len(records)
	return n > 0 && records[n-1].Point() == StepRun+".done"
}

// Pinned is the data of the record after a pin: the keys of the inodes that the keeper
// holds for the instance.
type Pinned []string

// Settlement is the data of an instance's last record.
type Settlement struct {
	Report recover.InstanceReport `json:"report"` // what the run says of the instance
	// Settled is false when the instance is neither in service nor as it was found:
	// resume must go on with it.
	Settled bool `json:"settled"`
}

// Lock is the data of the record before an instance is locked in Nova.
type Lock struct {
	Reason string `json:"reason"` // by which the lock is known again
	// Found is true when somebody else had locked it before: the run leaves that lock.
	Found bool `json:"found,omitempty"`
}

// LocksOf returns the locks, by UUID, that a run has made or found and has not undone.
func LocksOf(records []Record) (map[string]Lock, error) {
	locks := map[string]Lock{}
	for _, r := range records {
		switch r.Point() {
		case StepLock + ".begin":
			var rec Lock
			if err := r.decode(&rec); err != nil {
				return nil, err
			}
			locks[r.Instance] = rec
		case StepUnlock + ".done":
			delete(locks, r.Instance)
		}
	}
	return locks, nil
}

// PublishedIn returns the proven copies of held inodes that a run has published, by path, for
// each path in the order of their publishing. A mirror is published before its proof: it is
// none while History.IsInDoubt.
func PublishedIn(records []Record) map[string][]Published {
	files := map[string][]Published{}
	for _, r := range records {
		if r.Point() != StepPublish+".done" {
			continue
		}
		var p Published
		if err := r.decode(&p); err == nil && p.Source != "" {
			files[r.Path] = append(files[r.Path], p)
		}
	}
	if !slices.ContainsFunc(records, func(r Record) bool { return r.Step == StepMirror }) {
		return files // as of every run in mode reboot
	}
	histories := map[string]*History{}
	for _, r := range records {
		h := histories[r.Instance]
		if h == nil {
			h = newHistory()
			histories[r.Instance] = h
		}
		_ = h.add(r) // of what can't be read nothing is taken in
	}
	for path := range files {
		files[path] = slices.DeleteFunc(files[path], func(p Published) bool {
			for _, h := range histories {
				if h.IsInDoubt(path) && h.Mirrors[path].Is(p.Identity()) {
					return true
				}
			}
			return false
		})
	}
	return files
}

// Published is the data of a publish record: the file that is now at the record's path.
type Published struct {
	Source string `json:"source,omitempty"` // key of the copied inode; empty for a file made anew
	Device uint64 `json:"device"`           // of the published file
	Inode  uint64 `json:"inode"`            // the same
	Birth  string `json:"birth,omitempty"`  // the same: recover.Inode.Birth
	Size   int64  `json:"size"`             // bytes
	// Written is when a file that its guest only reads was last written, in nanoseconds since
	// 1970; 0 for one that the guest writes.
	Written int64  `json:"written,omitempty"`
	Staged  string `json:"staged,omitempty"` // the path at which it was staged
	Kept    bool   `json:"kept,omitempty"`   // an identical file was there already and stays
}

// Identity identifies the published file.
func (p Published) Identity() recover.Inode {
	return recover.Inode{Device: p.Device, Inode: p.Inode, Birth: p.Birth}
}

// IsUnwritten is true when the published file, whose status is at, is as it was published: one that
// its guest only reads has its size and its time still. Of another one only comparing it tells
// more: Nova's image cache sets the times of the images in use (nova/virt/libvirt/imagecache.py).
func (p Published) IsUnwritten(at identity.Status) bool {
	return p.Written == 0 || p.Written == at.Mtim.Nano() && p.Size == at.Size
}

// Seal is the data of the record before a directory is sealed: only root can enter it
// while files grow in it.
type Seal struct {
	Dir  string        `json:"dir"`            // its path
	Made bool          `json:"made,omitempty"` // it did not exist before
	Was  beneath.Owner `json:"was,omitzero"`   // its owner and mode before, if it existed
}

// Staged is the data of a copy's records: the staged copy.
type Staged struct {
	Dir    string        `json:"dir"`              // the staging directory
	Name   string        `json:"name"`             // in that directory
	Source string        `json:"source,omitempty"` // key of the copied inode
	Method copier.Method `json:"method,omitempty"` // how it was copied; known after the copy
	Bytes  int64         `json:"bytes,omitempty"`  // read from the source, holes not counted
	// Proven is true, after a copy, when the copy needs no comparison.
	Proven bool   `json:"proven,omitempty"`
	Inode  uint64 `json:"inode,omitempty"` // of the copy
	Birth  string `json:"birth,omitempty"` // of the copy: recover.Inode.Birth
	// Updated is true when the copy was brought up to what the inode had after QEMU's end.
	Updated bool `json:"updated,omitempty"`
	// Patch is the name, in the same directory, of what makes of the copy what the Proof is of
	// (copier.Apply), before an update.
	Patch string `json:"patch,omitempty"`
	Proof
}

// Proof is what a proven copy is known again by when nobody has its source any more. It is
// zero in the journals of releases that noted none.
type Proof struct {
	Size int64 `json:"size,omitempty"` // of the copy, in bytes
	// Digest is copier.Sums.Digest of the copy; empty for a clone, which is not read.
	Digest string `json:"sha256,omitempty"`
	// Modified is the copy's mtime, in nanoseconds since 1970.
	Modified int64 `json:"mtime,omitempty"`
}

// Is is true when the file is the staged copy: it has its name in a directory that only
// root can enter.
func (s Staged) Is(file recover.Inode) bool {
	return recover.Inode{Inode: s.Inode, Birth: s.Birth}.IsNumbered(file, true)
}
