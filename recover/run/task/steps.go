package task

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
)

// rollbackTime bounds each undo of a failed instance.
const rollbackTime = 2 * time.Minute

// Undo is one thing to be put back after a failure, under the name of its step.
type Undo struct {
	step string
	do   func(context.Context) error
}

// Step does one thing between two records of the journal. name is one of the journal's
// steps, path the file that it is about, or empty. The errors are do's and the journal's;
// and the context's when the run is to stop, unless the work is committed.
func (t *Task) Step(ctx context.Context, name, path string, do func() error) error {
	return t.StepData(ctx, name, path, nil, func() (any, error) { return nil, do() })
}

// StepData is Step with data for the record before. The record after has what do
// returns, or the same data if that is nil.
func (t *Task) StepData(ctx context.Context, name, path string, data any, do func() (any, error)) error {
	rec := journal.Record{Instance: t.Plan.UUID, Step: name, Path: path, Phase: recover.PhaseBegin}
	if err := t.Run.Log.Write(rec, data); err != nil {
		return err
	}
	t.Run.Progress.Step(t.Subject(), name)
	zerolog.Ctx(ctx).Debug().Str("step", name).Str("path", path).Msg("begin")
	began := time.Now()
	after, err := do()
	t.addStep(name, began)
	rec.Phase = recover.PhaseDone
	if err != nil {
		rec.Phase, rec.Error = recover.PhaseFailed, recover.InWords(err.Error())
	}
	if after == nil {
		after = data
	}
	if jerr := t.Run.Log.Write(rec, after); jerr != nil {
		return errors.Join(err, jerr)
	}
	zerolog.Ctx(ctx).Debug().Str("step", name).Str("path", path).Err(err).Dur("took", time.Since(began)).Msg("end")
	// A wish to stop is heard between any two steps, but for those that must not
	// be left half way.
	if err == nil && !t.State().IsCommitted() {
		err = ctx.Err()
	}
	return err
}

// OnFailure notes an undo, for Rollback. step is the undo's own name in the journal, as
// journal.StepThaw.
func (t *Task) OnFailure(step string, do func(context.Context) error) {
	t.undos = append(t.undos, Undo{step, do})
}

// TakeUndos removes the undos of that name and returns them, for ReturnUndos.
func (t *Task) TakeUndos(step string) []Undo {
	var taken, left []Undo
	for _, u := range t.undos {
		if u.step == step {
			taken = append(taken, u)
		} else {
			left = append(left, u)
		}
	}
	t.undos = left
	return taken
}

// ReturnUndos replaces all undos by those that TakeUndos has returned.
func (t *Task) ReturnUndos(taken []Undo) { t.undos = taken }

// KeepUndos removes all undos but those of one name.
func (t *Task) KeepUndos(step string) { t.undos = t.TakeUndos(step) }

// ForgetUndos leaves what was done as it is.
func (t *Task) ForgetUndos() { t.undos = nil }

// Rollback leaves the guest as it was found: each undo is tried, the last one first,
// whatever becomes of the others. An interruption of the run stops none of them. An undo
// that fails stays noted, and its error is joined to those of the others.
func (t *Task) Rollback(ctx context.Context) error {
	var errs error
	var left []Undo
	for _, u := range slices.Backward(t.undos) {
		if err := t.UndoNow(ctx, u.step, u.do); err != nil {
			errs = errors.Join(errs, err)
			left = append(left, u)
		}
	}
	slices.Reverse(left)
	t.undos = left
	return errs
}

// UndoNow undoes one step, under the undo's name, within two minutes. It is journaled if
// it can be: a journal that can't be written (its file system is full, perhaps with what
// is to be removed) must not keep a guest paused. The error is do's.
func (t *Task) UndoNow(ctx context.Context, step string, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	rec := journal.Record{Instance: t.Plan.UUID, Step: step, Phase: recover.PhaseBegin}
	log := zerolog.Ctx(ctx)
	if err := t.Run.Log.Write(rec, nil); err != nil {
		log.Error().Err(err).Msg("the journal can't be written; going on with the undo")
	}
	t.Run.Progress.Step(t.Subject(), step)
	err := do(ctx)
	rec.Phase = recover.PhaseDone
	if err != nil {
		rec.Phase, rec.Error = recover.PhaseFailed, recover.InWords(err.Error())
	}
	if jerr := t.Run.Log.Write(rec, nil); jerr != nil {
		log.Error().Err(jerr).Msg("the journal can't be written; going on with the undo")
	}
	return err
}
