package journal

import (
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// History is what an interrupted run did to one instance, from its journal. A nil prior
// means that it did nothing.
type History struct {
	Begun        bool
	Settlement   *Settlement
	FreezeBegun  bool
	SuspendBegun bool
	Suspended    time.Time // when the last suspend began
	DestroyBegun bool
	DestroyDone  bool
	RebootBegun  bool
	PausedAgain  bool                  // after its reboot
	Copies       map[string]stagedCopy // by path, the last copy of each
	ahead        map[string]Staged     // by path, copies made while the guest still wrote
	Staged       []Staged              // every copy that was begun
	Stores       []string              // every path whose copy in the backup directory was begun
	Published    map[string]Published  // by path, from the begin of its publish on
	Replanned    *recover.InstancePlan
	Mirrors      map[string]Mirror // by path, every mirror that was begun
	Placing      map[string]bool   // by path: its mirror began to get its name
	Pivoting     map[string]bool   // by path: its pivot was begun
	Pivoted      map[string]bool   // by path: its pivot is done
	Sealed       []Seal            // directories that only root can enter
	Exported     bool
	Differs      map[string]bool // by path: its comparison failed after the pivot
}

// stagedCopy is a staged copy, and whether its comparison succeeded.
type stagedCopy struct {
	Staged
	compared bool
}

// Proven returns the proven copy of a file, and whether there is one.
func (p *History) Proven(f recover.FilePlan) (Staged, bool) {
	if p == nil {
		return Staged{}, false
	}
	c, ok := p.Copies[f.Path]
	return c.Staged, ok && c.Inode != 0 && (c.Proven || c.compared || f.Content != "") && c.Source == f.Key()
}

// AheadOf returns the copy of a file that was made while its guest still wrote, and
// whether there is one.
func (p *History) AheadOf(f recover.FilePlan) (Staged, bool) {
	if p == nil {
		return Staged{}, false
	}
	rec, ok := p.ahead[f.Path]
	return rec, ok && rec.Source == f.Key()
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
	priors := map[string]*History{}
	for _, r := range records {
		if r.Instance == "" {
			continue
		}
		p := priors[r.Instance]
		if p == nil {
			p = newHistory()
			priors[r.Instance] = p
		}
		if err := p.add(r); err != nil {
			return priors, err
		}
	}
	return priors, nil
}

func newHistory() *History {
	return &History{
		Copies:    map[string]stagedCopy{},
		ahead:     map[string]Staged{},
		Published: map[string]Published{},
		Mirrors:   map[string]Mirror{},
		Placing:   map[string]bool{},
		Pivoting:  map[string]bool{},
		Pivoted:   map[string]bool{},
		Differs:   map[string]bool{},
	}
}

// add takes in the next record of the instance.
func (p *History) add(r Record) error {
	switch r.Point() {
	case StepInstance + ".begin":
		p.Begun = true
		p.Settlement = nil
	case StepInstance + ".done":
		p.Settlement = &Settlement{}
		return r.decode(p.Settlement)
	case StepPlan + ".done":
		// A resume made its plan anew: it found the QEMU alive and everything undone.
		todo := &recover.InstancePlan{}
		if err := r.decode(todo); err != nil {
			return err
		}
		again := newHistory()
		again.Begun, again.Staged, again.Stores, again.Published, again.Replanned = p.Begun, p.Staged, p.Stores, p.Published, todo
		*p = *again
	case StepFreeze + ".begin":
		p.FreezeBegun = true
	case StepThaw + ".done":
		p.FreezeBegun = false
	case StepSuspend + ".begin":
		p.SuspendBegun, p.Suspended = true, r.Time
	case StepSuspend + ".done":
		p.PausedAgain = p.RebootBegun
	case StepReboot + ".begin":
		p.RebootBegun = true
	case StepContinue + ".done":
		p.SuspendBegun = false
	case StepDestroy + ".begin":
		p.DestroyBegun = true
	case StepDestroy + ".done":
		p.DestroyDone = true
	case StepAhead + ".begin":
		var rec Staged
		if err := r.decode(&rec); err != nil {
			return err
		}
		p.ahead[r.Path] = rec
		p.Staged = append(p.Staged, rec)
	case StepCopy + ".begin", StepCopy + ".done":
		var rec Staged
		if err := r.decode(&rec); err != nil {
			return err
		}
		p.Copies[r.Path] = stagedCopy{Staged: rec}
		if r.Phase == recover.PhaseBegin {
			p.Staged = append(p.Staged, rec)
		}
	case StepSeal + ".begin":
		var rec Seal
		err := r.decode(&rec)
		p.Sealed = append(p.Sealed, rec)
		return err
	case StepUnseal + ".done":
		p.Sealed = nil
	case StepMirror + ".begin":
		var rec Mirror
		err := r.decode(&rec)
		p.Mirrors[r.Path] = rec
		return err
	case StepPlace + ".begin":
		p.Placing[r.Path] = true
	case StepPivot + ".begin":
		p.Pivoting[r.Path] = true
	case StepPivot + ".done":
		p.Pivoted[r.Path] = true
	case StepCompare + ".failed":
		p.Differs[r.Path] = p.Pivoted[r.Path]
	case StepExport + ".begin":
		p.Exported = true
	case StepEndExport + ".done":
		p.Exported = false
	case StepStore + ".begin":
		p.Stores = append(p.Stores, r.Path)
	case StepCompare + ".done":
		c := p.Copies[r.Path]
		c.compared = true
		p.Copies[r.Path] = c
	case StepCleanup + ".done":
		p.Copies, p.ahead = map[string]stagedCopy{}, map[string]Staged{}
	case StepPublish + ".begin", StepPublish + ".done":
		var pub Published
		if err := r.decode(&pub); err != nil {
			return err
		}
		p.Published[r.Path] = pub
	}
	return nil
}

// SameBoot is true when the host has not been booted since the run began. The numbers
// of held inodes are valid only until the next boot.
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

// PlanOf returns the plan of the run as a whole, and whether the journal has one.
func PlanOf(records []Record) (recover.Plan, bool, error) {
	for _, r := range records {
		if r.Point() == StepPlan+".done" && r.Instance == "" {
			var whole recover.Plan
			err := r.decode(&whole)
			return whole, true, err
		}
	}
	return recover.Plan{}, false, nil
}
