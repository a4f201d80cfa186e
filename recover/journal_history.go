package recover

import (
	"slices"
	"time"
)

// prior is what an interrupted run did to one instance, from its journal. A nil prior
// means that it did nothing.
type prior struct {
	begun        bool
	settlement   *settlement
	freezeBegun  bool
	suspendBegun bool
	suspended    time.Time // when the last suspend began
	destroyBegun bool
	destroyDone  bool
	rebootBegun  bool
	pausedAgain  bool                    // after its reboot
	copies       map[string]priorCopy    // by path, the last copy of each
	ahead        map[string]stagedRecord // by path, copies made while the guest still wrote
	staged       []stagedRecord          // every copy that was begun
	stores       []string                // every path whose copy in the backup directory was begun
	published    map[string]published    // by path, from the begin of its publish on
	replanned    *InstancePlan
	mirrors      map[string]mirrorRecord // by path, every mirror that was begun
	placing      map[string]bool         // by path: its mirror began to get its name
	pivoting     map[string]bool         // by path: its pivot was begun
	pivoted      map[string]bool         // by path: its pivot is done
	sealed       []sealRecord            // directories that only root can enter
	exported     bool
	differs      map[string]bool // by path: its comparison failed after the pivot
}

// priorCopy is a staged copy, and whether its comparison succeeded.
type priorCopy struct {
	stagedRecord
	compared bool
}

// proven returns the proven copy of a file, and whether there is one.
func (p *prior) proven(f FilePlan) (stagedRecord, bool) {
	if p == nil {
		return stagedRecord{}, false
	}
	c, ok := p.copies[f.Path]
	return c.stagedRecord, ok && c.Inode != 0 && (c.Proven || c.compared || f.Content != "") && c.Source == f.Key()
}

// aheadOf returns the copy of a file that was made while its guest still wrote, and
// whether there is one.
func (p *prior) aheadOf(f FilePlan) (stagedRecord, bool) {
	if p == nil {
		return stagedRecord{}, false
	}
	rec, ok := p.ahead[f.Path]
	return rec, ok && rec.Source == f.Key()
}

// stageDirs returns every staging directory that a journal names. Some may be gone or
// empty.
func stageDirs(records []Record) ([]string, error) {
	var dirs []string
	for _, r := range records {
		if r.Point() != stepAhead+".begin" && r.Point() != stepCopy+".begin" && r.Point() != stepMirror+".begin" {
			continue
		}
		var rec stagedRecord
		if err := r.decode(&rec); err != nil {
			return nil, err
		}
		if !slices.Contains(dirs, rec.Dir) {
			dirs = append(dirs, rec.Dir)
		}
	}
	return dirs, nil
}

// priorsOf returns what a run did to each instance, by UUID, from the records of its
// journal in their order. A later attempt replaces an earlier one. After an error the
// result is what was read before it.
func priorsOf(records []Record) (map[string]*prior, error) {
	priors := map[string]*prior{}
	for _, r := range records {
		if r.Instance == "" {
			continue
		}
		p := priors[r.Instance]
		if p == nil {
			p = newPrior()
			priors[r.Instance] = p
		}
		if err := p.add(r); err != nil {
			return priors, err
		}
	}
	return priors, nil
}

func newPrior() *prior {
	return &prior{
		copies:    map[string]priorCopy{},
		ahead:     map[string]stagedRecord{},
		published: map[string]published{},
		mirrors:   map[string]mirrorRecord{},
		placing:   map[string]bool{},
		pivoting:  map[string]bool{},
		pivoted:   map[string]bool{},
		differs:   map[string]bool{},
	}
}

// add takes in the next record of the instance.
func (p *prior) add(r Record) error {
	switch r.Point() {
	case stepInstance + ".begin":
		p.begun = true
		p.settlement = nil
	case stepInstance + ".done":
		p.settlement = &settlement{}
		return r.decode(p.settlement)
	case stepPlan + ".done":
		// A resume made its plan anew: it found the QEMU alive and everything undone.
		todo := &InstancePlan{}
		if err := r.decode(todo); err != nil {
			return err
		}
		again := newPrior()
		again.begun, again.staged, again.stores, again.published, again.replanned = p.begun, p.staged, p.stores, p.published, todo
		*p = *again
	case stepFreeze + ".begin":
		p.freezeBegun = true
	case stepThaw + ".done":
		p.freezeBegun = false
	case stepSuspend + ".begin":
		p.suspendBegun, p.suspended = true, r.Time
	case stepSuspend + ".done":
		p.pausedAgain = p.rebootBegun
	case stepReboot + ".begin":
		p.rebootBegun = true
	case stepContinue + ".done":
		p.suspendBegun = false
	case stepDestroy + ".begin":
		p.destroyBegun = true
	case stepDestroy + ".done":
		p.destroyDone = true
	case stepAhead + ".begin":
		var rec stagedRecord
		if err := r.decode(&rec); err != nil {
			return err
		}
		p.ahead[r.Path] = rec
		p.staged = append(p.staged, rec)
	case stepCopy + ".begin", stepCopy + ".done":
		var rec stagedRecord
		if err := r.decode(&rec); err != nil {
			return err
		}
		p.copies[r.Path] = priorCopy{stagedRecord: rec}
		if r.Phase == PhaseBegin {
			p.staged = append(p.staged, rec)
		}
	case stepSeal + ".begin":
		var rec sealRecord
		err := r.decode(&rec)
		p.sealed = append(p.sealed, rec)
		return err
	case stepUnseal + ".done":
		p.sealed = nil
	case stepMirror + ".begin":
		var rec mirrorRecord
		err := r.decode(&rec)
		p.mirrors[r.Path] = rec
		return err
	case stepPlace + ".begin":
		p.placing[r.Path] = true
	case stepPivot + ".begin":
		p.pivoting[r.Path] = true
	case stepPivot + ".done":
		p.pivoted[r.Path] = true
	case stepCompare + ".failed":
		p.differs[r.Path] = p.pivoted[r.Path]
	case stepExport + ".begin":
		p.exported = true
	case stepEndExport + ".done":
		p.exported = false
	case stepStore + ".begin":
		p.stores = append(p.stores, r.Path)
	case stepCompare + ".done":
		c := p.copies[r.Path]
		c.compared = true
		p.copies[r.Path] = c
	case stepCleanup + ".done":
		p.copies, p.ahead = map[string]priorCopy{}, map[string]stagedRecord{}
	case stepPublish + ".begin", stepPublish + ".done":
		var pub published
		if err := r.decode(&pub); err != nil {
			return err
		}
		p.published[r.Path] = pub
	}
	return nil
}

// sameBoot is true when the host has not been booted since the run began. The numbers
// of held inodes are valid only until the next boot.
func sameBoot(records []Record) (bool, error) {
	if len(records) == 0 {
		return true, nil
	}
	head, err := headOf(records)
	if err != nil {
		return false, err
	}
	boot, err := bootID(procDir)
	return boot == head.BootID, err
}

// planOf returns the plan of the run as a whole, and whether the journal has one.
func planOf(records []Record) (Plan, bool, error) {
	for _, r := range records {
		if r.Point() == stepPlan+".done" && r.Instance == "" {
			var whole Plan
			err := r.decode(&whole)
			return whole, true, err
		}
	}
	return Plan{}, false, nil
}
