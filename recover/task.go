package recover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// rollbackTime bounds each undo of a failed instance.
const rollbackTime = 2 * time.Minute

// task is the work on one instance in one run.
type task struct {
	s     *Session
	ip    InstancePlan
	prior *prior // what an interrupted run did; nil in a new one

	staged []*stagedFile
	begun  []*stagedFile // copied ahead of the suspend, and not proven yet
	stored []string      // what it has made in the backup directory
	moves  []*mirrored   // the disks that are, or were, mirrored
	logged inode         // the console log that was put back
	proof  Verify        // how a live rescue is to be proven
	socket string        // of the export of its disks
	// oldKept: the new disks differ from the old ones, which are on disk too.
	oldKept bool
	undos   []undo // how to leave the guest as it was found, last first

	// committed is true from the moment the domain's destruction begins: from
	// there on the only way is forward.
	committed bool
	off       bool     // the domain has no QEMU (any more)
	fought    bool     // Nova ends whatever libvirt starts of it
	stayOff   bool     // because the guest ended by itself: it is not started again
	before    Snapshot // the guest's writing, right after the suspend
	suspended time.Time

	mu     sync.Mutex // report's steps may come from a shared file's copy
	report InstanceReport
}

// undo is one thing to be put back after a failure.
type undo struct {
	step string
	do   func(context.Context) error
}

func newTask(s *Session, ip InstancePlan) *task {
	return &task{s: s, ip: ip, prior: s.priors[ip.UUID],
		report: InstanceReport{UUID: ip.UUID, Domain: ip.Domain, Name: ip.Name, Steps: []StepReport{}}}
}

func (t *task) subject() Subject {
	return Subject{UUID: t.ip.UUID, Domain: t.ip.Domain, Name: t.ip.Name}
}

// do works the instance's plan off. settled is false when the instance is left
// neither in service nor as it was found.
func (t *task) do(ctx context.Context) (report InstanceReport, settled bool) {
	log := zerolog.Ctx(ctx).With().Str("instance", t.ip.UUID).Str("domain", t.ip.Domain).Logger()
	ctx = log.WithContext(ctx)
	switch {
	case t.ip.Action == ActionRefuse:
		return t.end(OutcomeSkipped, t.fail(refusal(t.ip.Refusal), "Nothing of it was touched", "")), true
	case t.ip.Action == ActionNone:
		return t.end(OutcomeIntact, nil), true
	case ctx.Err() != nil && t.prior == nil:
		return t.end(OutcomeSkipped, t.fail(fmt.Errorf("interrupted before it began: %w", ctx.Err()), "Nothing of it was touched; its lost files stay held by the keeper", "Run the command again")), true
	}
	if err := t.s.kept[t.ip.UUID]; err != nil && t.prior == nil {
		return t.end(OutcomeSkipped, t.fail(err, "Nothing of it was touched; its lost files stay held until this run ends", "")), true
	}
	outcome, err := t.run(ctx)
	if err == nil && t.fought {
		return t.end(OutcomeFailed, t.fail(errors.New("its files are back and proven, but it is off: nova-compute has it as stopped, and ends it whenever libvirt starts it"),
			"No data is lost", "Have Nova start it: os-rescue reboot --instance "+t.ip.UUID+" --state SHUTOFF")), true
	}
	if err == nil {
		return t.end(outcome, nil), true
	}
	log.Debug().Err(err).Bool("committed", t.committed).Msg("the instance failed")
	if t.ip.Action == ActionHardReboot {
		return t.endReboot(err)
	}
	if t.oldKept {
		return t.end(OutcomeFailed, t.fail(errors.Join(err, t.unpin(context.WithoutCancel(ctx))), "It runs on its new disk, and the disk as it was before is in a file beside it",
			"Compare the two, and tell os-rescue's developers")), true
	}
	if t.committed {
		return t.end(OutcomeFailed, t.fail(err, t.whatIsSafe(ctx), "When the cause is gone: os-rescue resume "+t.s.plan.Run)), false
	}
	if t.endedMeanwhile() {
		return t.end(OutcomeFailed, t.fail(err, t.whatIsSafe(ctx)+"; the guest ended in the middle", "Go on with: os-rescue resume "+t.s.plan.Run)), false
	}
	if rerr := t.rollback(ctx); rerr != nil {
		return t.end(OutcomeFailed, t.fail(errors.Join(err, fmt.Errorf("and putting it back as it was found failed: %w", rerr)),
			"Nothing was destroyed: its QEMU still has every byte, and the keeper holds the lost files",
			"See how it is with `virsh domstate "+t.ip.Domain+"`, then: os-rescue resume "+t.s.plan.Run)), false
	}
	if t.prior != nil {
		// Not yet as it was found: only a plan made anew begins after all is undone.
		return t.end(OutcomeFailed, t.fail(err, t.whatIsSafe(ctx), "When the cause is gone: os-rescue resume "+t.s.plan.Run)), false
	}
	outcome, next := OutcomeFailed, "When the cause is gone, run the command again"
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrConflict) {
		outcome, next = OutcomeSkipped, ""
	}
	return t.end(outcome, t.fail(err, "Nothing was destroyed: it is as it was found, and the keeper holds its lost files", next)), true
}

// run chooses the way: afresh, or on from where an interrupted run ended.
func (t *task) run(ctx context.Context) (Outcome, error) {
	if t.prior != nil {
		return t.resume(ctx)
	}
	return t.fresh(ctx)
}

func (t *task) fresh(ctx context.Context) (Outcome, error) {
	switch t.ip.Action {
	case ActionNone:
		return OutcomeIntact, t.unpin(ctx)
	case ActionRefuse:
		return OutcomeSkipped, refusal(t.ip.Refusal)
	case ActionBackup:
		return OutcomeRescued, t.backUp(ctx)
	case ActionHardReboot:
		return OutcomeRescued, t.rebootOnly(ctx)
	case ActionLive:
		t.report.Mode = ModeLive
		return OutcomeRescued, t.live(ctx)
	case ActionReboot:
		if t.s.plan.Command == CommandRescue {
			t.report.Mode = ModeReboot
		}
		if why := t.ip.NotLive; why != "" {
			zerolog.Ctx(ctx).Info().Str("reason", why).Msg("not rescued live")
			t.notef("not rescued live: %s", why)
		}
		return OutcomeRescued, t.rescue(ctx)
	default:
		return OutcomeRescued, t.rescue(ctx)
	}
}

// fail makes the error that an operator reads.
func (t *task) fail(err error, safe, next string) *InstanceError {
	return &InstanceError{UUID: t.ip.UUID, Domain: t.ip.Domain, Err: err, Safe: safe, Next: next}
}

// endedMeanwhile is true when the QEMU that the plan was made for has ended by
// itself: its copies may be all that is left, and nothing of it is undone.
func (t *task) endedMeanwhile() bool {
	return t.s.plan.Command != CommandBackup && t.ip.Process.PID != 0 && !t.sameProcess()
}

// whatIsSafe says where the data of an instance is whose files are not all back,
// after a look at each place.
func (t *task) whatIsSafe(ctx context.Context) string {
	var copies, held, gone, drafts []string
	for _, f := range t.ip.Files {
		if f.Content != "" {
			continue
		}
		if place := t.placeOf(f); place != "" {
			copies = append(copies, place)
		} else if _, err := t.s.source(context.WithoutCancel(ctx), f); err == nil {
			held = append(held, f.Path)
		} else {
			gone = append(gone, f.Path)
			if rec, ok := t.prior.aheadOf(f); ok {
				drafts = append(drafts, "what was copied of "+f.Path+" while its guest ran, perhaps not all of it, is "+rec.Dir+"/"+rec.Name)
			}
		}
	}
	var parts []string
	if len(gone) > 0 {
		parts = append(parts, "Nobody holds "+strings.Join(gone, ", ")+" any more, and no copy of it was proven")
		parts = append(parts, drafts...)
	} else {
		parts = append(parts, "No data is lost")
	}
	if len(copies) > 0 {
		parts = append(parts, "proven and on disk: "+strings.Join(copies, ", "))
	}
	if len(held) > 0 {
		parts = append(parts, "held until this host goes down: "+strings.Join(held, ", "))
	}
	return strings.Join(parts, "; ")
}

// placeOf returns where a proven copy of a file is; "" when there is none.
func (t *task) placeOf(f FilePlan) string {
	for _, m := range t.moves {
		if m.plan.Path == f.Path && m.published {
			return f.Path
		}
	}
	for _, staged := range t.staged {
		switch {
		case staged == nil || staged.plan.Path != f.Path:
		case staged.published || staged.kept:
			return f.Path
		case staged.proven:
			return staged.stage.dir.Path() + "/" + staged.name
		}
	}
	st, err := t.s.root.Lstat(f.Path)
	if err == nil && t.s.publishedBefore(f, inode{st.Dev, st.Ino}) {
		return f.Path
	}
	if c, ok := t.prior.proven(f); ok {
		return c.Dir + "/" + c.Name
	}
	return ""
}

func (t *task) end(outcome Outcome, err *InstanceError) InstanceReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Outcome = outcome
	if err != nil {
		t.report.Error = err.Message()
	}
	return t.report
}

func (t *task) notef(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Notes = append(t.report.Notes, fmt.Sprintf(format, args...))
}

// step does one journaled thing: a record before, a record after. data, if it is
// known before, goes into both.
func (t *task) step(ctx context.Context, name, path string, do func() error) error {
	return t.stepData(ctx, name, path, nil, func() (any, error) { return nil, do() })
}

// stepData is step with data for the record before, and more for the one after.
func (t *task) stepData(ctx context.Context, name, path string, data any, do func() (any, error)) error {
	rec := Record{Instance: t.ip.UUID, Step: name, Path: path, Phase: PhaseBegin}
	if err := t.s.journal.Write(rec, data); err != nil {
		return err
	}
	t.s.e.Progress.Step(t.subject(), name)
	zerolog.Ctx(ctx).Debug().Str("step", name).Str("path", path).Msg("begin")
	began := time.Now()
	after, err := do()
	t.mu.Lock()
	t.report.Steps = append(t.report.Steps, StepReport{Name: name, Started: began.UTC(), Seconds: time.Since(began).Seconds()})
	t.mu.Unlock()
	rec.Phase = PhaseDone
	if err != nil {
		rec.Phase, rec.Error = PhaseFailed, err.Error()
	}
	if after == nil {
		after = data
	}
	if jerr := t.s.journal.Write(rec, after); jerr != nil {
		return errors.Join(err, jerr)
	}
	zerolog.Ctx(ctx).Debug().Str("step", name).Str("path", path).Err(err).Dur("took", time.Since(began)).Msg("end")
	// A wish to stop is heard between any two steps, but for those that must not
	// be left half way.
	if err == nil && !t.committed {
		err = ctx.Err()
	}
	return err
}

// onFailure notes how a step is undone.
func (t *task) onFailure(step string, do func(context.Context) error) {
	t.undos = append(t.undos, undo{step, do})
}

// rollback leaves the guest as it was found: each undo is tried, whatever
// becomes of the others, and none is stopped by the interruption that caused it.
// What failed stays to be undone.
func (t *task) rollback(ctx context.Context) error {
	var errs error
	var left []undo
	for _, u := range slices.Backward(t.undos) {
		if err := t.undoOne(ctx, u); err != nil {
			errs = errors.Join(errs, err)
			left = append(left, u)
		}
	}
	slices.Reverse(left)
	t.undos = left
	return errs
}

// undoOne undoes one step. It is journaled if it can be: a journal that can't be
// written (its file system is full, perhaps with what is to be removed) must not
// keep a guest paused.
func (t *task) undoOne(ctx context.Context, u undo) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	rec := Record{Instance: t.ip.UUID, Step: u.step, Phase: PhaseBegin}
	log := zerolog.Ctx(ctx)
	if err := t.s.journal.Write(rec, nil); err != nil {
		log.Error().Err(err).Msg("the journal can't be written; going on with the undo")
	}
	t.s.e.Progress.Step(t.subject(), u.step)
	err := u.do(ctx)
	rec.Phase = PhaseDone
	if err != nil {
		rec.Phase, rec.Error = PhaseFailed, err.Error()
	}
	if jerr := t.s.journal.Write(rec, nil); jerr != nil {
		log.Error().Err(jerr).Msg("the journal can't be written; going on with the undo")
	}
	return err
}
