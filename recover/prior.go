package recover

// prior is what a journal says an interrupted run did to one instance. A nil
// prior is that of an instance nothing was done to.
type prior struct {
	begun        bool
	settlement   *settlement
	freezeBegun  bool
	suspendBegun bool
	destroyBegun bool
	destroyDone  bool
	copies       map[string]priorCopy // by path
	published    map[string]published // by path, from its begin on
	replanned    *InstancePlan
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

// publishedAs returns the inode that the interrupted run gave the file's path;
// the zero inode when it had not come to that.
func (p *prior) publishedAs(f FilePlan) inode {
	if p == nil {
		return inode{}
	}
	pub := p.published[f.Path]
	return inode{pub.Device, pub.Inode}
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
			p = &prior{copies: map[string]priorCopy{}, published: map[string]published{}}
			priors[r.Instance] = p
		}
		if err := p.add(r); err != nil {
			return nil, err
		}
	}
	return priors, nil
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
		*p = prior{begun: p.begun, copies: map[string]priorCopy{}, published: p.published, replanned: plan}
	case stepFreeze + ".begin":
		p.freezeBegun = true
	case stepThaw + ".done":
		p.freezeBegun = false
	case stepSuspend + ".begin":
		p.suspendBegun = true
	case stepContinue + ".done":
		p.suspendBegun = false
	case stepDestroy + ".begin":
		p.destroyBegun = true
	case stepDestroy + ".done":
		p.destroyDone = true
	case stepCopy + ".begin", stepCopy + ".done":
		var rec stagedRecord
		if err := r.decode(&rec); err != nil {
			return err
		}
		p.copies[r.Path] = priorCopy{stagedRecord: rec}
	case stepCompare + ".done":
		c := p.copies[r.Path]
		c.compared = true
		p.copies[r.Path] = c
	case stepCleanup + ".done":
		p.copies = map[string]priorCopy{}
	case stepPublish + ".begin", stepPublish + ".done":
		var pub published
		if err := r.decode(&pub); err != nil {
			return err
		}
		p.published[r.Path] = pub
	}
	return nil
}
