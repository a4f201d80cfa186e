package journal

import (
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// Mirror is the data of the record before a mirror: the file that it goes to.
type Mirror struct {
	Target string       `json:"target"` // the disk: vda
	Dir    string       `json:"dir"`    // the staging directory
	Name   string       `json:"name"`   // in that directory
	Inode  uint64       `json:"inode"`  // of the new file
	Birth  string       `json:"birth,omitempty"`
	Source string       `json:"source"` // key of the lost inode
	Disk   recover.Disk `json:"disk"`   // as it was before the mirror
}

// Is is true when the file is the mirror's: it has its name in a directory that only root
// can enter, or a process has held it from the mirror's begin on.
func (m Mirror) Is(file recover.Inode) bool {
	return recover.Inode{Inode: m.Inode, Birth: m.Birth}.IsNumbered(file, true)
}

// Export is the data of the record before an export: its scratch files.
type Export struct {
	Scratch []string `json:"scratch"` // paths
}

// Comparison is the data of the record after a mirror's comparison that failed.
type Comparison struct {
	Differs bool `json:"differs"` // false when it could not be made
}

// Check is the data of the record after a mirror's check.
type Check struct {
	Skipped string `json:"skipped,omitempty"` // why it was not checked
	Waived  bool   `json:"waived,omitempty"`  // the operator wants no more than there is to check
}

func (h *History) beginMirror(path string, rec Mirror) {
	h.Mirrors[path] = rec
	for _, said := range []map[string]bool{h.Differs, h.checked, h.oldKept} {
		delete(said, path)
	}
	delete(h.compared, path)
}

// addDifference takes in a comparison that failed. Releases that did not journal why are taken
// at the worst.
func (h *History) addDifference(r Record) {
	c := Comparison{Differs: true}
	if r.Data != nil && r.decode(&c) != nil {
		c.Differs = true
	}
	h.Differs[r.Path] = h.Pivoted[r.Path] && c.Differs
}

func (h *History) addCheck(r Record) error {
	var c Check
	if r.Data != nil {
		if err := r.decode(&c); err != nil {
			return err
		}
	}
	h.checked[r.Path] = c.Skipped == "" || c.Waived
	return nil
}

// noteOldKept notes of a file that was published that it is what a mirrored disk was before.
func (h *History) noteOldKept(at string, pub Published) {
	for path, m := range h.Mirrors {
		if m.Source == pub.Source && strings.HasPrefix(at, recover.BeforeName(path, "")) {
			h.oldKept[path] = true
		}
	}
}

// ComparedBy returns how the mirror of a disk was compared with what it is of, and found to be
// the same; empty when it was not.
func (h *History) ComparedBy(path string) recover.Verify { return h.compared[path] }

// IsUnproven is true for a disk whose mirror, which may be published, is no proven copy: a
// comparison has found a difference, or it was neither compared nor checked.
func (h *History) IsUnproven(path string) bool {
	if h == nil {
		return false
	}
	_, mirrored := h.Mirrors[path]
	return mirrored && (h.Differs[path] || !h.checked[path] && h.compared[path] == "")
}

// IsInDoubt is IsUnproven while what the disk was before is in no file of its own: the lost
// inode is all that there is of it for sure.
func (h *History) IsInDoubt(path string) bool { return h.IsUnproven(path) && !h.oldKept[path] }
