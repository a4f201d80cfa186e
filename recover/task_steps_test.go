package recover

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// journaled is a task with a journal in a directory of its own.
func journaled(t *testing.T, plan InstancePlan) (*task, func() []string) {
	t.Helper()
	dir := t.TempDir()
	log, _, err := openJournal(dir, nil)
	must(t, err)
	t.Cleanup(func() { log.Close() })
	return newTask(&run{log: log, progress: NoProgress{}}, plan), func() []string {
		records, err := readJournal(dir)
		must(t, err)
		var points []string
		for _, r := range records {
			points = append(points, r.Point())
		}
		return points
	}
}

func TestARollbackUndoesTheLastStepFirstAndKeepsWhatFailed(t *testing.T) {
	w, written := journaled(t, InstancePlan{UUID: testUUID(1)})
	var order []string
	broken := errors.New("not now")
	undoes := func(step string, err error) {
		w.onFailure(step, func(ctx context.Context) error {
			order = append(order, step)
			return errors.Join(err, ctx.Err())
		})
	}
	undoes(stepCleanup, nil)
	undoes(stepThaw, broken)
	undoes(stepContinue, nil)
	stopped, stop := context.WithCancel(t.Context())
	stop() // the wish to stop that caused it does not stop it
	if err := w.rollback(stopped); !errors.Is(err, broken) || errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := w.rollback(stopped); !errors.Is(err, broken) {
		t.Errorf("what failed is not tried again: %v", err)
	}
	if want := []string{stepContinue, stepThaw, stepCleanup, stepThaw}; !slices.Equal(order, want) {
		t.Errorf("%q, want %q", order, want)
	}
	want := []string{"continue.begin", "continue.done", "thaw.begin", "thaw.failed", "cleanup.begin", "cleanup.done", "thaw.begin", "thaw.failed"}
	if got := written(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestUndosCanBeTakenByTheirStep(t *testing.T) {
	w, _ := journaled(t, InstancePlan{})
	for _, step := range []string{stepCleanup, stepThaw, stepCleanup, stepContinue} {
		w.onFailure(step, func(context.Context) error { return nil })
	}
	left := func() (steps []string) {
		for _, u := range w.undos {
			steps = append(steps, u.step)
		}
		return steps
	}
	taken := w.takeUndos(stepCleanup)
	if got := left(); len(taken) != 2 || !slices.Equal(got, []string{stepThaw, stepContinue}) {
		t.Errorf("%d taken, left: %q", len(taken), got)
	}
	if w.keepUndos(stepThaw); !slices.Equal(left(), []string{stepThaw}) {
		t.Errorf("left: %q", left())
	}
	if w.returnUndos(taken); !slices.Equal(left(), []string{stepCleanup, stepCleanup}) {
		t.Errorf("left: %q", left())
	}
	if w.forgetUndos(); len(left()) > 0 {
		t.Errorf("left: %q", left())
	}
}

func TestAWishToStopIsHeardBetweenStepsUntilTheWayIsForwardOnly(t *testing.T) {
	w, _ := journaled(t, InstancePlan{})
	stopped, stop := context.WithCancel(t.Context())
	stop()
	done := 0
	step := func() error { return w.step(stopped, stepCheck, "", func() error { done++; return nil }) }
	if err := step(); !errors.Is(err, context.Canceled) {
		t.Errorf("not heard: %v", err)
	}
	must(t, w.enter(eventCommit))
	if err := step(); err != nil {
		t.Errorf("heard: %v", err)
	}
	if done != 2 {
		t.Errorf("%d steps done", done)
	}
}
