package recover

import (
	"slices"
	"time"
)

// prior is what a journal says an interrupted run did to one instance. A nil
// prior is that of an instance nothing was done to.
type prior struct {
	begun        bool
	settlement   *settlement
	freezeBegun  bool
	suspendBegun bool
	suspended    time.Time // when the suspend began
	destroyBegun bool
	destroyDone  bool
	rebootBegun  bool
	pausedAgain  bool                    // after its reboot
	copies       map[string]priorCopy    // the last of each path
	ahead        map[string]stagedRecord // by path: what was copied while the guest still wrote
	staged       []stagedRecord          // every copy that was begun
	stores       []string                // every file that was begun in the backup directory
	published    map[string]published    // by path, from its begin on
	replanned    *InstancePlan
	mirrors      map[string]mirrorRecord // by path, of every mirror that was begun
	placing      map[string]bool         // by path: begun to get its name
	pivoting     map[string]bool         // by path: begun
	pivoted      map[string]bool         // by path: done
	sealed       []sealRecord            // directories that are closed to all but root
	exported     bool
	differs      map[string]bool // by path: the proof failed after the pivot
}

// priorCopy is a staged copy and how far its proof went.
type priorCopy struct {
	stagedRecord
	compared bool
}

// proven returns the copy of a file that was proven, and whether there is one.
func (p *prior) proven(f FilePlan) (stagedRecord, bool) {
	if p == nil {
		return stagedRecord{}, false
	}
	c, ok := p.copies[f.Path]
	return c.stagedRecord, ok && c.Inode != 0 && (c.Proven || c.compared || f.Content != "") && c.Source == f.Key()
}

// aheadOf returns what was copied of a file ahead, and whether anything was.
func (p *prior) aheadOf(f FilePlan) (stagedRecord, bool) {
	if p == nil {
		return stagedRecord{}, false
	}
	rec, ok := p.ahead[f.Path]
	return rec, ok && rec.Source == f.Key()
}

// stageDirs returns every staging directory that a journal names, whatever has
// become of what was in it.
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

// priorsOf reads the records of a journal, in order, into what was done to each
// instance. What a later try did counts instead of what an earlier one did.
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
	return &prior{ahead: map[string]stagedRecord{}, copies: map[string]priorCopy{}, published: map[string]published{}, mirrors: map[string]mirrorRecord{}, placing: map[string]bool{}, pivoting: map[string]bool{}, pivoted: map[string]bool{}, differs: map[string]bool{}}
}

func (p *prior) add(r Record) error {
	switch r.Point() {
	case stepInstance + ".begin":
		p.begun = true
		p.settlement = nil
	case stepInstance + ".done":
		p.settlement = &settlement{}
		return r.decode(p.settlement)
	case stepPlan + ".done":
		// Made anew: its QEMU was found alive, and all was undone before.
		plan := &InstancePlan{}
		if err := r.decode(plan); err != nil {
			return err
		}
		again := newPrior()
		again.begun, again.staged, again.stores, again.published, again.replanned = p.begun, p.staged, p.stores, p.published, plan
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

// sameBoot is true when the host has not been booted since the run began: only
// then do the numbers of held inodes mean anything.
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

// planOf returns the plan of the run as a whole.
func planOf(records []Record) (Plan, bool, error) {
	for _, r := range records {
		if r.Point() == stepPlan+".done" && r.Instance == "" {
			var plan Plan
			err := r.decode(&plan)
			return plan, true, err
		}
	}
	return Plan{}, false, nil
}
