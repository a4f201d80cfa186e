package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/selection"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

func (s *Session) prepareResume(ctx context.Context, run string, offline bool) error {
	id, err := s.state.Find(run)
	if err != nil {
		return err
	}
	if err := s.takeLocks(id, statedir.CommandResume); err != nil {
		return err
	}
	records, err := s.openJournal(id, s.e.Failpoint)
	if err != nil {
		return err
	}
	status, err := journal.StatusOf(id, records)
	if err != nil {
		return err
	}
	if status.State == recover.RunFinished {
		return fmt.Errorf("%w: %s is finished: nothing is left to be done", recover.ErrNoRun, id)
	}
	if err := s.takeUp(ctx, id, status.Command, records); err != nil {
		return err
	}
	plan, ok, err := journal.PlanOf(records)
	if err != nil {
		return err
	}
	if !ok {
		return s.planAgain(ctx, id, records, offline)
	}
	s.plan = plan
	s.plan.Options.Offline = s.plan.Options.Offline || offline
	if err := s.signIn(ctx, plan.Command, s.plan.Options); err != nil {
		return err
	}
	for n, todo := range s.plan.Instances {
		h := s.history[todo.UUID]
		if h != nil && h.Replanned != nil {
			s.plan.Instances[n] = *h.Replanned
		}
		if h != nil && !h.Begun {
			delete(s.history, todo.UUID) // only pinned: it is worked on from the beginning
		}
	}
	return s.reserve()
}

// takeUp fills the session in with what an interrupted run had done and held.
func (s *Session) takeUp(ctx context.Context, run string, command recover.Command, records []journal.Record) error {
	if err := s.open(command); err != nil {
		return err
	}
	s.resuming = true
	same, err := journal.SameBoot(records)
	if err != nil {
		return err
	}
	s.takeCustody(run, same)
	if _, err := s.pins.Earlier(ctx); err != nil {
		return err
	}
	if s.history, err = journal.HistoriesOf(records); err != nil {
		return err
	}
	if s.locks, err = journal.LocksOf(records); err != nil {
		return err
	}
	return s.reopenStaging(records)
}

// reopenStaging opens the staging directories of the interrupted run, to be
// removed at the end if they are empty by then.
func (s *Session) reopenStaging(records []journal.Record) error {
	dirs, err := journal.StageDirs(records)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if _, err := s.dirs.Reopen(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// planAgain makes the plan that an interrupted run did not come to make.
func (s *Session) planAgain(ctx context.Context, id string, records []journal.Record, offline bool) error {
	if len(records) == 0 {
		err := fmt.Errorf("%w: %s was interrupted before it had done anything, and is forgotten now: run the command again", recover.ErrNoRun, id)
		return errors.Join(err, os.RemoveAll(s.state.Run(id)))
	}
	head, err := journal.HeaderOf(records)
	if err != nil {
		return err
	}
	if head.Options.Reboot.Remote {
		err := fmt.Errorf("%w: %s was interrupted before it had rebooted anything, and the scans that it had are not kept: "+
			"run the command again", recover.ErrNoRun, id)
		return errors.Join(err, os.RemoveAll(s.state.Run(id)))
	}
	s.history = map[string]*journal.History{}
	head.Options.Offline = head.Options.Offline || offline
	err = s.choosePinPlan(ctx, id, head)
	if !isForGood(err) {
		return err
	}
	// A run without a plan has touched nothing, so nothing is left for another resume.
	err = fmt.Errorf("%w: %s was interrupted before it had touched anything, and can't be planned any more: it is ended now; "+
		"what it had the keeper hold stays held: %w", recover.ErrNoRun, id, err)
	return errors.Join(err, s.log.Write(journal.Record{Step: journal.StepRun, Phase: recover.PhaseDone}, journal.End{}))
}

// isForGood is true for the errors of a choice of instances that another try will meet
// again: what the run was to be about is not there any more.
func isForGood(err error) bool {
	for _, gone := range []error{recover.ErrNothingSelected, recover.ErrUsage, recover.ErrNoProject, recover.ErrAmbiguous} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// replan makes a new plan for one instance from what it is now.
func (s *Session) replan(ctx context.Context, i recover.Instance) (recover.InstancePlan, error) {
	if s.cloud != nil {
		server, err := s.cloud.Server(ctx, i.UUID)
		if err != nil {
			return recover.InstancePlan{}, fmt.Errorf("ask Nova how it is: %w", err)
		}
		i.Server = &server
		i.Disagreement = selection.Disagreement(i, s.e.Settings.Host, server)
	}
	selected := selection.Selected{Here: []recover.Instance{i}}
	plan, err := s.e.makePlan(ctx, s.cloud, s.plan.Command, s.plan.Options, selected, true)
	if err != nil {
		return recover.InstancePlan{}, err
	}
	return plan.Instances[0], nil
}

// halfDone returns the work that a killed run was in the middle of, and that can be undone:
// of instances that it neither settled nor began to destroy. Those whose suspend may be under
// way yet come last: nobody has to wait for them. Its session is that of Undo.
func (s *Session) halfDone() []*instance {
	var half []*instance
	for _, todo := range s.plan.Instances {
		h := s.history[todo.UUID]
		if h == nil || !h.Begun || h.Settlement != nil || h.DestroyBegun {
			continue
		}
		if h.Replanned != nil {
			todo = *h.Replanned
		}
		if suspends(todo) {
			half = append(half, newInstance(s.run(), s.workshop(), todo))
		}
	}
	slices.SortStableFunc(half, func(a, b *instance) int {
		x, y := a.t.History.Suspending, b.t.History.Suspending
		switch {
		case x == y:
			return 0
		case x:
			return 1
		default:
			return -1
		}
	})
	return half
}
