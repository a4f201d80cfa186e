package recover

import (
	"slices"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
)

// runHeader is the data of a journal's first record, which describes the run.
type runHeader struct {
	Run     string  `json:"run"`
	Command Command `json:"command"`
	Mode    Mode    `json:"mode"`
	Host    string  `json:"host"`
	BootID  string  `json:"boot_id"`
	PID     int     `json:"pid"`
	Options Options `json:"options"`
}

// headOf returns the data of a journal's first record. records must not be empty.
func headOf(records []Record) (runHeader, error) {
	var head runHeader
	err := records[0].decode(&head)
	return head, err
}

// runEnd is the data of a journal's last record, if its run came to an end.
type runEnd struct {
	// Interrupted is true when the run was asked to stop, and left instances undone.
	Interrupted bool `json:"interrupted,omitempty"`
}

// endOf returns how a run ended the last time that it came to an end; the zero value
// when it never did.
func endOf(records []Record) (runEnd, error) {
	for _, r := range slices.Backward(records) {
		if r.Point() == stepRun+".done" {
			var end runEnd
			err := r.decode(&end)
			return end, err
		}
	}
	return runEnd{}, nil
}

// settlement is the data of an instance's last record.
type settlement struct {
	Report InstanceReport `json:"report"`
	// Settled is false when the instance is neither in service nor as it was found:
	// resume must go on with it.
	Settled bool `json:"settled"`
}

// lockRecord is the data of the record before an instance is locked in Nova.
type lockRecord struct {
	Reason string `json:"reason"`
	// Found is true when somebody else had locked it before: the run leaves that lock.
	Found bool `json:"found,omitempty"`
}

// locksOf returns the locks, by UUID, that a run has made or found and has not undone.
func locksOf(records []Record) (map[string]lockRecord, error) {
	locks := map[string]lockRecord{}
	for _, r := range records {
		switch r.Point() {
		case stepLock + ".begin":
			var rec lockRecord
			if err := r.decode(&rec); err != nil {
				return nil, err
			}
			locks[r.Instance] = rec
		case stepUnlock + ".done":
			delete(locks, r.Instance)
		}
	}
	return locks, nil
}

// mirrorRecord is the data of the record before a mirror: the file that it goes to.
type mirrorRecord struct {
	Target string `json:"target"` // the disk: vda
	Dir    string `json:"dir"`    // the staging directory
	Name   string `json:"name"`   // in that directory
	Inode  uint64 `json:"inode"`  // of the new file
	Source string `json:"source"` // key of the lost inode
	Disk   Disk   `json:"disk"`
}

// exportRecord is the data of the record before an export: its scratch files.
type exportRecord struct {
	Scratch []string `json:"scratch"` // paths
}

// publishedIn returns the copies of held inodes that a run has published, by path, for
// each path in the order of their publishing.
func publishedIn(records []Record) map[string][]published {
	files := map[string][]published{}
	for _, r := range records {
		if r.Point() != stepPublish+".done" {
			continue
		}
		var p published
		if err := r.decode(&p); err == nil && p.Source != "" {
			files[r.Path] = append(files[r.Path], p)
		}
	}
	return files
}

// published is the data of a publish record: the file that is now at the record's path.
type published struct {
	Source string `json:"source,omitempty"` // key of the copied inode; empty for a file made anew
	Device uint64 `json:"device"`           // of the published file
	Inode  uint64 `json:"inode"`
	Size   int64  `json:"size"`             // bytes
	Staged string `json:"staged,omitempty"` // the path at which it was staged
	Kept   bool   `json:"kept,omitempty"`   // an identical file was there already and stays
}

// sealRecord is a directory that only root can enter while files grow in it, and its
// owner and mode before.
type sealRecord struct {
	Dir  string        `json:"dir"`
	Made bool          `json:"made,omitempty"` // it did not exist before
	Was  beneath.Owner `json:"was,omitzero"`
}

// stagedRecord is the data of a copy's records: the staged copy.
type stagedRecord struct {
	Dir    string        `json:"dir"`              // the staging directory
	Name   string        `json:"name"`             // in that directory
	Source string        `json:"source,omitempty"` // key of the copied inode
	Method copier.Method `json:"method,omitempty"`
	Bytes  int64         `json:"bytes,omitempty"` // read from the source, holes not counted
	// Proven is true, after a copy, when the copy needs no comparison.
	Proven bool   `json:"proven,omitempty"`
	Inode  uint64 `json:"inode,omitempty"` // of the copy
}
