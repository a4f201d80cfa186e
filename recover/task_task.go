package recover

import (
	"slices"
)

// task is the work on one instance in one run: its plan, its journaled steps with
// their undo, the state that its guest is in, and its report.
type task struct {
	*report
	run     *run
	plan    InstancePlan
	history *prior // what an interrupted run did to it; nil when it is begun anew

	current workState
	undos   []undo // how to leave the guest as it was found, last first
	// placed are the files that this run gave their paths while it undid an
	// interrupted one, by path.
	placed map[string]published
}

// newTask returns the work on an instance of the run's plan.
func newTask(r *run, plan InstancePlan) *task {
	return &task{run: r, plan: plan, history: r.history[plan.UUID], current: stateAsFound, placed: map[string]published{},
		report: &report{data: InstanceReport{UUID: plan.UUID, Domain: plan.Domain, Name: plan.Name, Steps: []StepReport{}}}}
}

// subject names the instance in progress displays.
func (t *task) subject() Subject {
	return Subject{UUID: t.plan.UUID, Domain: t.plan.Domain, Name: t.plan.Name}
}

// written are the files that the guest writes.
func (t *task) written() []FilePlan {
	return slices.DeleteFunc(slices.Clone(t.plan.Files), func(f FilePlan) bool { return !f.Writable })
}

// beginAnew replaces the plan by one that was made after all that an interrupted
// run had done to the instance was undone.
func (t *task) beginAnew(plan InstancePlan) { t.plan, t.history = plan, nil }

// amend changes the plan.
func (t *task) amend(change func(plan *InstancePlan)) { change(&t.plan) }

// forgetFile takes a file out of the plan.
func (t *task) forgetFile(path string) {
	t.plan.Files = slices.DeleteFunc(slices.Clone(t.plan.Files), func(f FilePlan) bool { return f.Path == path })
}

// state is where the work stands.
func (t *task) state() workState { return t.current }

// enter notes that e happens to the guest. The error is a fault of os-rescue.
func (t *task) enter(e workEvent) error {
	next, err := t.current.after(e)
	t.current = next
	return err
}

// destroyedBefore is true when an interrupted run had begun to destroy the domain.
func (t *task) destroyedBefore() bool { return t.history != nil && t.history.destroyBegun }

// notePlaced notes that the undo of an interrupted run has published a file.
func (t *task) notePlaced(path string, rec published) {
	if t.history != nil {
		t.placed[path] = rec
	}
}

// publishedBefore is true when the interrupted run, or the undo of it, gave the
// file's path that very inode.
func (t *task) publishedBefore(f FilePlan, at inode) bool {
	if pub, ok := t.placed[f.Path]; ok && pub.Inode == at.Inode && pub.Source == f.Key() {
		return true
	}
	return t.run.publishedBefore(f, at)
}

// fail makes the error that an operator reads: what is safe, and what to do next,
// in one sentence each.
func (t *task) fail(err error, safe, next string) *InstanceError {
	return &InstanceError{UUID: t.plan.UUID, Domain: t.plan.Domain, Err: err, Safe: safe, Next: next}
}
