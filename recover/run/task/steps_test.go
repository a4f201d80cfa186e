package task

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// journaled is a task with a journal in a directory of its own.
func journaled(t *testing.T, plan recover.InstancePlan) (*Task, func() []string) {
	t.Helper()
	dir := t.TempDir()
	log, _, err := journal.Open(dir, nil)
	recovertest.Must(t, err)
	t.Cleanup(func() { log.Close() })
	return New(&Run{Log: log, Progress: recover.NoProgress{}}, plan), func() []string {
		records, err := journal.Read(dir)
		recovertest.Must(t, err)
		var points []string
		for _, r := range records {
			points = append(points, r.Point())
		}
		return points
	}
}

func TestARollbackUndoesTheLastStepFirstAndKeepsWhatFailed(t *testing.T) {
	w, written := journaled(t, recover.InstancePlan{UUID: recovertest.UUID(1)})
	var order []string
	broken := errors.New("not now")
	undoes := func(step string, err error) {
		w.OnFailure(step, func(ctx context.Context) error {
			order = append(order, step)
			return errors.Join(err, ctx.Err())
		})
	}
	undoes(journal.StepCleanup, nil)
	undoes(journal.StepThaw, broken)
	undoes(journal.StepContinue, nil)
	stopped, stop := context.WithCancel(t.Context())
	stop() // the wish to stop that caused it does not stop it
	if err := w.Rollback(stopped); !errors.Is(err, broken) || errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := w.Rollback(stopped); !errors.Is(err, broken) {
		t.Errorf("what failed is not tried again: %v", err)
	}
	if want := []string{journal.StepContinue, journal.StepThaw, journal.StepCleanup, journal.StepThaw}; !slices.Equal(order, want) {
		t.Errorf("%q, want %q", order, want)
	}
	want := []string{
		"continue.begin", "continue.done", "thaw.begin", "thaw.failed", "cleanup.begin", "cleanup.done", // the first time
		"thaw.begin", "thaw.failed",
	}
	if got := written(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestUndosCanBeTakenByTheirStep(t *testing.T) {
	w, _ := journaled(t, recover.InstancePlan{})
	for _, step := range []string{journal.StepCleanup, journal.StepThaw, journal.StepCleanup, journal.StepContinue} {
		w.OnFailure(step, func(context.Context) error { return nil })
	}
	left := func() (steps []string) {
		for _, u := range w.undos {
			steps = append(steps, u.step)
		}
		return steps
	}
	taken := w.TakeUndos(journal.StepCleanup)
	if got := left(); len(taken) != 2 || !slices.Equal(got, []string{journal.StepThaw, journal.StepContinue}) {
		t.Errorf("%d taken, left: %q", len(taken), got)
	}
	if w.KeepUndos(journal.StepThaw); !slices.Equal(left(), []string{journal.StepThaw}) {
		t.Errorf("left: %q", left())
	}
	if w.ReturnUndos(taken); !slices.Equal(left(), []string{journal.StepCleanup, journal.StepCleanup}) {
		t.Errorf("left: %q", left())
	}
	if w.ForgetUndos(); len(left()) > 0 {
		t.Errorf("left: %q", left())
	}
}

func TestAWishToStopIsHeardBetweenStepsUntilTheWayIsForwardOnly(t *testing.T) {
	w, _ := journaled(t, recover.InstancePlan{})
	stopped, stop := context.WithCancel(t.Context())
	stop()
	done := 0
	step := func() error { return w.Step(stopped, journal.StepCheck, "", func() error { done++; return nil }) }
	if err := step(); !errors.Is(err, context.Canceled) {
		t.Errorf("not heard: %v", err)
	}
	recovertest.Must(t, w.Enter(t.Context(), EventCommit))
	if err := step(); err != nil {
		t.Errorf("heard: %v", err)
	}
	if done != 2 {
		t.Errorf("%d steps done", done)
	}
}
