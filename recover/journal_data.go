package recover

import (
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
)

// lockRecord is what a run did about an instance's lock in Nova.
type lockRecord struct {
	Reason string `json:"reason"`
	// Found is true when somebody had locked it already: that lock stays.
	Found bool `json:"found,omitempty"`
}

// locksOf reads a journal for the locks that its run has made or found, and has
// not undone.
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

// mirrorRecord is what the record before a mirror says: which file it goes to.
type mirrorRecord struct {
	Target string `json:"target"`
	Dir    string `json:"dir"`  // where it is staged
	Name   string `json:"name"` // in there
	Inode  uint64 `json:"inode"`
	Source string `json:"source"` // key of the lost inode
	Disk   Disk   `json:"disk"`
}

// exportRecord is what the record before an export says.
type exportRecord struct {
	Scratch []string `json:"scratch"`
}

// sealRecord is a directory that is closed to all but root while files grow in
// it, and what it was before.
type sealRecord struct {
	Dir  string        `json:"dir"`
	Made bool          `json:"made,omitempty"` // it did not exist
	Was  beneath.Owner `json:"was,omitzero"`
}

// stagedRecord is what a copy's journal records say.
type stagedRecord struct {
	Dir    string        `json:"dir"`
	Name   string        `json:"name"`
	Source string        `json:"source,omitempty"`
	Method copier.Method `json:"method,omitempty"`
	Bytes  int64         `json:"bytes,omitempty"`
	// Proven is true in the record after a copy that needs no comparison.
	Proven bool   `json:"proven,omitempty"`
	Inode  uint64 `json:"inode,omitempty"`
}
