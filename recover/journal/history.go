package journal

import (
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// History is what a run did to one instance, from its journal. A nil History means that
// it did nothing.
type History struct {
	Begun        bool                  // the work on it began
	Last         string                // its last journal point: "copy.begin"
	Settlement   *Settlement           // of the last try; nil when that did not end
	FreezeBegun  bool                  // its guest may be frozen
	SuspendBegun bool                  // its guest may be suspended
	Suspending   bool                  // its suspend was asked for, and nobody has heard how that ended
	Suspended    time.Time             // when the last suspend began
	DestroyBegun bool                  // its QEMU may have been ended
	DestroyDone  bool                  // its QEMU has been ended
	Crashed      bool                  // its QEMU has crashed
	RebootBegun  bool                  // Nova may have been asked for a hard reboot
	PausedAgain  bool                  // after its reboot
	Copies       map[string]Copy       // by path, the last copy of each
	Staged       []Staged              // every copy that was begun
	Stores       []string              // every path whose copy in the backup directory was begun
	Published    map[string]Published  // by path, from the begin of its publish on
	Replanned    *recover.InstancePlan // the plan that a resume made anew; nil without one
	Mirrors      map[string]Mirror     // by path, every mirror that was begun
	Placing      map[string]bool       // by path: its mirror began to get its name
	Pivoting     map[string]bool       // by path: its pivot was begun
	Pivoted      map[string]bool       // by path: its pivot is done
	Sealed       []Seal                // directories that only root can enter
	Exported     bool                  // its disks may be exported
	Relinked     map[string]bool       // by path: it has got its right name back
	Differs      map[string]bool       // by path: after the pivot its comparison has found a difference

	compared map[string]recover.Verify // by path, how its mirror was compared with what it is of, and is the same
	checked  map[string]bool           // by path: its mirror was checked as an image, or need not be
	oldKept  map[string]bool           // by path: what it was before its mirror is published beside it
	ahead    map[string]Staged         // by path, copies that may be incomplete
}

// Copy is a staged copy. History.Proven tells whether it was proven.
type Copy struct {
	Staged
	compared bool // its comparison succeeded
}

// Unsettled is true when the run began to work on the instance and neither brought it
// back into service nor left it as it was found.
func (h *History) Unsettled() bool {
	return h != nil && h.Begun && (h.Settlement == nil || !h.Settlement.Settled)
}

// Proven returns the proven copy of the file's lost inode, and whether there is one.
func (h *History) Proven(f recover.FilePlan) (Staged, bool) {
	if h == nil {
		return Staged{}, false
	}
	c, ok := h.Copies[f.Path]
	return c.Staged, ok && c.Inode != 0 && (c.Proven || c.compared || f.Content != "") && f.HasKey(c.Source)
}

// AheadOf returns the copy of the file's lost inode that may be incomplete, because its guest
// still wrote or because it was just being brought up to date, and whether there is one.
func (h *History) AheadOf(f recover.FilePlan) (Staged, bool) {
	if h == nil {
		return Staged{}, false
	}
	rec, ok := h.ahead[f.Path]
	return rec, ok && f.HasKey(rec.Source)
}

// UpdateOf returns the copy of the file's lost inode that was just being brought up to date,
// its patch and the proof of what it is to become, and whether there is one.
func (h *History) UpdateOf(f recover.FilePlan) (Staged, bool) {
	rec, ok := h.AheadOf(f)
	return rec, ok && rec.Patch != "" && rec.Digest != ""
}

// StageDirs returns every staging directory that a journal names. Some may be gone or
// empty.
func StageDirs(records []Record) ([]string, error) {
	var dirs []string
	for _, r := range records {
		if r.Point() != StepAhead+".begin" && r.Point() != StepCopy+".begin" && r.Point() != StepMirror+".begin" {
			continue
		}
		var rec Staged
		if err := r.decode(&rec); err != nil {
			return nil, err
		}
		if !slices.Contains(dirs, rec.Dir) {
			dirs = append(dirs, rec.Dir)
		}
	}
	return dirs, nil
}

// HistoriesOf returns what a run did to each instance, by UUID, from the records of its
// journal in their order. A later attempt replaces an earlier one. After an error the
// result is what was read before it.
func HistoriesOf(records []Record) (map[string]*History, error) {
	histories := map[string]*History{}
	for _, r := range records {
		if r.Instance == "" {
			continue
		}
		h := histories[r.Instance]
		if h == nil {
			h = newHistory()
			histories[r.Instance] = h
		}
		if err := h.add(r); err != nil {
			return histories, err
		}
	}
	return histories, nil
}

func newHistory() *History {
	return &History{
		Copies:    map[string]Copy{},
		ahead:     map[string]Staged{},
		Published: map[string]Published{},
		Mirrors:   map[string]Mirror{},
		Placing:   map[string]bool{},
		Pivoting:  map[string]bool{},
		Pivoted:   map[string]bool{},
		Relinked:  map[string]bool{},
		Differs:   map[string]bool{},
		compared:  map[string]recover.Verify{},
		checked:   map[string]bool{},
		oldKept:   map[string]bool{},
	}
}

// add takes in the next record of the instance.
func (h *History) add(r Record) error {
	h.Last = r.Point()
	switch r.Point() {
	case StepInstance + ".begin":
		h.Begun = true
		h.Settlement = nil
	case StepInstance + ".done":
		h.Settlement = &Settlement{}
		return r.decode(h.Settlement)
	case StepPlan + ".done":
		// A resume made its plan anew: it found the QEMU alive and everything undone.
		todo := &recover.InstancePlan{}
		if err := r.decode(todo); err != nil {
			return err
		}
		again := newHistory()
		again.Begun, again.Last, again.Replanned = h.Begun, h.Last, todo
		again.Staged, again.Stores, again.Published = h.Staged, h.Stores, h.Published
		*h = *again
	case StepFreeze + ".begin":
		h.FreezeBegun = true
	case StepThaw + ".done":
		h.FreezeBegun = false
	case StepSuspend + ".begin":
		h.SuspendBegun, h.Suspending, h.Suspended = true, true, r.Time
	case StepSuspend + ".failed":
		h.Suspending = false
	case StepSuspend + ".done":
		h.Suspending, h.PausedAgain = false, h.RebootBegun
	case StepReboot + ".begin":
		h.RebootBegun = true
	case StepContinue + ".done":
		h.SuspendBegun = false
	case StepDestroy + ".begin":
		h.DestroyBegun = true
	case StepCrash + ".done":
		h.Crashed = true
	case StepDestroy + ".done":
		h.DestroyDone = true
	case StepAhead + ".begin":
		var rec Staged
		if err := r.decode(&rec); err != nil {
			return err
		}
		h.ahead[r.Path] = rec
		h.Staged = append(h.Staged, rec)
	case StepCopy + ".begin", StepCopy + ".done":
		var rec Staged
		if err := r.decode(&rec); err != nil {
			return err
		}
		h.Copies[r.Path] = Copy{Staged: rec}
		if r.Phase == recover.PhaseBegin {
			h.Staged = append(h.Staged, rec)
		}
	case StepUpdate + ".begin", StepUpdate + ".done":
		var rec Staged
		if err := r.decode(&rec); err != nil {
			return err
		}
		if r.Phase == recover.PhaseBegin {
			// Until it is done the copy is neither what it was nor what it is to be: its
			// patch makes it that.
			delete(h.Copies, r.Path)
			h.ahead[r.Path] = rec
		} else {
			delete(h.ahead, r.Path)
			h.Copies[r.Path] = Copy{Staged: rec}
		}
	case StepSeal + ".begin":
		var rec Seal
		err := r.decode(&rec)
		h.Sealed = append(h.Sealed, rec)
		return err
	case StepUnseal + ".done":
		h.Sealed = nil
	case StepMirror + ".begin":
		var rec Mirror
		err := r.decode(&rec)
		h.beginMirror(r.Path, rec)
		return err
	case StepPlace + ".begin":
		h.Placing[r.Path] = true
	case StepPivot + ".begin":
		h.Pivoting[r.Path] = true
	case StepPivot + ".done":
		h.Pivoted[r.Path] = true
	case StepLinkBack + ".done", StepMoveBack + ".done":
		h.Relinked[r.Path] = true
	case StepUnlink + ".begin":
		h.Relinked = map[string]bool{} // the undo of all, as far as it got
	case StepCompare + ".failed":
		h.addDifference(r)
	case StepCheck + ".done":
		return h.addCheck(r)
	case StepExport + ".begin":
		h.Exported = true
	case StepEndExport + ".done":
		h.Exported = false
	case StepStore + ".begin":
		h.Stores = append(h.Stores, r.Path)
	case StepCompare + ".done":
		c := h.Copies[r.Path]
		c.compared = true
		if r.Data != nil && c.Inode != 0 {
			if err := r.decode(&c.Proof); err != nil {
				return err
			}
		}
		h.Copies[r.Path] = c
		h.compared[r.Path] = recover.VerifyFull
		if h.Pivoted[r.Path] {
			h.compared[r.Path] = recover.VerifyRunning
		}
	case StepCleanup + ".done":
		h.Copies, h.ahead = map[string]Copy{}, map[string]Staged{}
	case StepPublish + ".begin", StepPublish + ".done":
		var pub Published
		if err := r.decode(&pub); err != nil {
			return err
		}
		h.Published[r.Path] = pub
		if r.Phase == recover.PhaseDone {
			h.noteOldKept(r.Path, pub)
		}
	}
	return nil
}

// SameBoot is true when the host has not been booted since the run began, or when the run
// was killed before its first record. The numbers of held inodes are valid only until the
// next boot.
func SameBoot(records []Record) (bool, error) {
	if len(records) == 0 {
		return true, nil
	}
	head, err := HeaderOf(records)
	if err != nil {
		return false, err
	}
	boot, err := procfs.BootID(procfs.Dir)
	return boot == head.BootID, err
}

// PinnedOf returns the keys of the inodes that a run had the keeper hold, by instance. What
// can't be read is left out.
func PinnedOf(records []Record) map[string]Pinned {
	pinned := map[string]Pinned{}
	for _, r := range records {
		var keys Pinned
		if r.Point() == StepPin+".done" && r.decode(&keys) == nil {
			pinned[r.Instance] = append(pinned[r.Instance], keys...)
		}
	}
	return pinned
}

// PlanOf returns the plan of the run as a whole, and whether the journal has one. A plan
// that a resume made anew for one instance is in History.Replanned.
func PlanOf(records []Record) (recover.Plan, bool, error) {
	for _, r := range records {
		if r.Point() == StepPlan+".done" && r.Instance == "" {
			var plan recover.Plan
			err := r.decode(&plan)
			return plan, true, err
		}
	}
	return recover.Plan{}, false, nil
}
