package task

import (
	"context"
	"fmt"
	"slices"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/journal"
)

// Task is the work on one instance in one run: its plan, its journaled steps with
// their undo, the state that its guest is in, and its report.
type Task struct {
	*report
	Run     *Run                 // shared with the other instances
	Plan    recover.InstancePlan // of this instance; changed only by the task's methods
	History *journal.History     // what an interrupted run did to it; nil when it is begun anew

	current State
	undos   []Undo // how to leave the guest as it was found, last first
	// placed are the files that this run gave their paths while it undid an
	// interrupted one, by path.
	placed map[string]journal.Published
}

// New returns the work on an instance of the run's plan.
func New(r *Run, plan recover.InstancePlan) *Task {
	return &Task{
		report:  newReport(plan),
		Run:     r,
		Plan:    plan,
		History: r.History[plan.UUID],
		current: stateAsFound,
		placed:  map[string]journal.Published{},
	}
}

// Subject names the instance in progress displays.
func (t *Task) Subject() recover.Subject {
	return recover.Subject{UUID: t.Plan.UUID, Domain: t.Plan.Domain, Name: t.Plan.Name}
}

// Written returns the files of the plan that the guest writes.
func (t *Task) Written() []recover.FilePlan {
	return slices.DeleteFunc(slices.Clone(t.Plan.Files), func(f recover.FilePlan) bool { return !f.Writable })
}

// BeginAnew forgets what an interrupted run did to the instance: all of it was undone,
// and the journal has the plan that was made after that.
func (t *Task) BeginAnew() { t.History = nil }

// Amend changes the instance's plan by what has happened to it since.
func (t *Task) Amend(change func(plan *recover.InstancePlan)) { change(&t.Plan) }

// ForgetFile takes a file out of the plan.
func (t *Task) ForgetFile(path string) {
	t.Plan.Files = slices.DeleteFunc(slices.Clone(t.Plan.Files), func(f recover.FilePlan) bool { return f.Path == path })
}

// State is where the work stands.
func (t *Task) State() State { return t.current }

// Enter notes that e happens to the guest.
//
// That e can't happen in the guest's state is a fault of os-rescue, and changes
// nothing. It is an error while the guest can still be left as it was
// found. Later, when the domain has ended or the work is committed, it is only logged:
// it must not keep the files from being published, or the guest from being started.
func (t *Task) Enter(ctx context.Context, e Event) error {
	next, err := t.current.after(e)
	t.current = next
	if err != nil && !t.current.canBeUndone() {
		zerolog.Ctx(ctx).Error().Err(err).Msg("a fault of os-rescue, please report it: the work on the instance goes on")
		return nil
	}
	return err
}

// DestroyedBefore is true when an interrupted run had begun to destroy the domain: that
// it is off is no wish of the guest's then.
func (t *Task) DestroyedBefore() bool { return t.History != nil && t.History.DestroyBegun }

// DestroyDone is true when an interrupted run has destroyed the domain.
func (t *Task) DestroyDone() bool { return t.History != nil && t.History.DestroyDone }

// NotePlaced notes that the undo of an interrupted run has given a file its path, for
// PublishedBefore. In a run that is not resumed it does nothing.
func (t *Task) NotePlaced(path string, rec journal.Published) {
	if t.History != nil {
		t.placed[path] = rec
	}
}

// PublishedBefore is true when the interrupted run, or the undo of it, gave the file's
// path the inode that is at it now. held says that the guest has that open: without that a
// number proves nothing where the birth is not known.
func (t *Task) PublishedBefore(f recover.FilePlan, at recover.Inode, held bool) bool {
	if pub, ok := t.placed[f.Path]; ok && isPublished(pub, f, at, held) {
		return true
	}
	return t.Run.publishedBefore(f, at, held)
}

// IsUnwritten is true unless the file that was published at the path was written since, and is one that
// its guest only reads: journal.Published.IsUnwritten. at is the status of what is there.
func (t *Task) IsUnwritten(path string, at identity.Status) bool {
	pub, ok := t.placed[path]
	for _, h := range t.Run.History {
		if p, known := h.Published[path]; known && !ok {
			pub, ok = p, true
		}
	}
	return pub.IsUnwritten(at)
}

// Stopped says at which step the end of ctx has stopped the work. It wraps err.
func (t *Task) Stopped(ctx context.Context, err error) error {
	at := "before its first step"
	if step := t.lastStep(); step != "" {
		at = "at the step " + step
	}
	return &stop{fmt.Sprintf("%s %s", recover.StoppedBy(ctx), at), err}
}

// stop is an interruption in an operator's words.
type stop struct {
	text string
	err  error
}

func (s *stop) Error() string { return s.text }

func (s *stop) Unwrap() error { return s.err }

// Fail makes the error that an operator reads out of err: safe says what is safe, next
// what to do, in one sentence each; next may be empty.
func (t *Task) Fail(err error, safe, next string) *recover.InstanceError {
	return &recover.InstanceError{UUID: t.Plan.UUID, Domain: t.Plan.Domain, Err: err, Safe: safe, Next: next}
}
