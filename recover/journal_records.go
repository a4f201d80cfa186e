package recover

import (
	"slices"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
)

// runHeader is what the first record of a journal says of its run.
type runHeader struct {
	Run     string  `json:"run"`
	Command Command `json:"command"`
	Mode    Mode    `json:"mode"`
	Host    string  `json:"host"`
	BootID  string  `json:"boot_id"`
	PID     int     `json:"pid"`
	Options Options `json:"options"`
}

// headOf returns what the first record of a journal says; records is not empty.
func headOf(records []Record) (runHeader, error) {
	var head runHeader
	err := records[0].decode(&head)
	return head, err
}

// runEnd is what the last record of a run that came to its end says.
type runEnd struct {
	// Interrupted is true when it was ended by a wish to stop, with instances left.
	Interrupted bool `json:"interrupted,omitempty"`
}

// endOf returns how a run ended the last time it came to its end.
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

// settlement is what the last record of an instance says.
type settlement struct {
	Report InstanceReport `json:"report"`
	// Settled is false when the instance is neither in service nor as it was
	// found: resume has to go on with it.
	Settled bool `json:"settled"`
}

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

// publishedIn returns what a run has published of held inodes, by path, each path's
// in the order in which it was published.
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

// published is what a publish record says: which inode's content stands where.
type published struct {
	Source string `json:"source,omitempty"` // key of the inode that was copied; empty for a made file
	Device uint64 `json:"device"`           // of the published file
	Inode  uint64 `json:"inode"`
	Size   int64  `json:"size"`
	Staged string `json:"staged,omitempty"` // where it was staged
	Kept   bool   `json:"kept,omitempty"`   // an identical file stood there already
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
