package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// PrepareResume gets an interrupted run ready to be finished: the one of that
// name (or unique beginning of it). Its journal says what was done, the keeper
// has what was pinned, and what is now is looked at afresh. With offline Nova is
// not asked even if the run began with it: domains are started through the
// hypervisor, and locks stay for a later resume. Errors: those of Prepare, and
// ErrNoRun when there is no such run or it is finished.
func (e *Engine) PrepareResume(ctx context.Context, run string, offline bool) (*Session, error) {
	s := e.newSession()
	if err := s.prepareResume(ctx, run, offline); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Session) prepareResume(ctx context.Context, run string, offline bool) error {
	id, err := s.state.find(run)
	if err != nil {
		return err
	}
	if s.lock, err = s.state.lock(lockInfo{Run: id, Command: "resume", PID: os.Getpid(), Since: s.started}); err != nil {
		return err
	}
	var records []Record
	if s.journal, records, err = openJournal(s.state.run(id), s.e.Failpoint); err != nil {
		return err
	}
	status, err := statusOf(id, records)
	if err != nil {
		return err
	}
	if status.State == RunFinished {
		return fmt.Errorf("%w: %s is finished: nothing is left to be done", ErrNoRun, id)
	}
	if err := s.takeUp(ctx, status.Command, records); err != nil {
		return err
	}
	plan, ok, err := planOf(records)
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
	for n, ip := range s.plan.Instances {
		p := s.priors[ip.UUID]
		if p != nil && p.replanned != nil {
			s.plan.Instances[n] = *p.replanned
		}
		if p != nil && !p.begun {
			delete(s.priors, ip.UUID) // only pinned: it is worked on from the beginning
		}
	}
	return nil
}

// takeUp fills the session in with what an interrupted run had done and held.
func (s *Session) takeUp(ctx context.Context, command Command, records []Record) (err error) {
	if err := s.open(command); err != nil {
		return err
	}
	if err := s.connectKeeper(ctx); err != nil {
		return err
	}
	s.resuming = true
	if s.sameBoot, err = sameBoot(records); err != nil {
		return err
	}
	if s.priors, err = priorsOf(records); err != nil {
		return err
	}
	if s.locks, err = locksOf(records); err != nil {
		return err
	}
	return s.reopenStages(records)
}

// reopenStages opens the staging directories of the interrupted run, to be
// removed at the end if they are empty by then.
func (s *Session) reopenStages(records []Record) error {
	dirs, err := stageDirs(records)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if _, err := s.stages.reopen(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// planAgain makes the plan that an interrupted run did not come to make.
func (s *Session) planAgain(ctx context.Context, id string, records []Record, offline bool) error {
	if len(records) == 0 {
		err := fmt.Errorf("%w: %s was interrupted before it had done anything, and is forgotten now: run the command again", ErrNoRun, id)
		return errors.Join(err, os.RemoveAll(s.state.run(id)))
	}
	head, err := headOf(records)
	if err != nil {
		return err
	}
	if head.Options.Reboot.Remote {
		err := fmt.Errorf("%w: %s was interrupted before it had rebooted anything, and the scans that it had are not kept: run the command again", ErrNoRun, id)
		return errors.Join(err, os.RemoveAll(s.state.run(id)))
	}
	s.priors = map[string]*prior{}
	head.Options.Offline = head.Options.Offline || offline
	return s.choosePinPlan(ctx, id, head)
}

// resume goes on with an instance from where an interrupted run left it, by what
// is there now. The journal only says what that run meant.
func (t *task) resume(ctx context.Context) (Outcome, error) {
	if t.ip.Action == ActionHardReboot {
		return OutcomeRescued, t.rebootOnly(ctx)
	}
	if err := t.stillHere(ctx); err != nil {
		return OutcomeFailed, err
	}
	d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
	if errors.Is(err, ErrNoDomain) {
		d, err = Domain{UUID: t.ip.UUID, Name: t.ip.Domain, State: StateShutOff}, nil
	}
	if err != nil {
		return OutcomeFailed, err
	}
	if d.State == StateShutOff {
		if t.ip.Action == ActionBackup {
			return OutcomeFailed, fmt.Errorf("%w: the guest ended before its backup was complete", ErrRefused)
		}
		if t.ip.Action == ActionLive {
			if err := t.endLive(ctx); err != nil {
				return OutcomeFailed, err
			}
		}
		t.redoPutBack()
		return OutcomeRescued, t.rescue(ctx)
	}
	if t.sameProcess() {
		// Nothing was destroyed: back to how it was found, and from the beginning.
		if err := t.undoPrior(ctx, d); err != nil {
			return OutcomeFailed, err
		}
	}
	return t.replan(ctx, d)
}

// stillHere refuses to go on with an instance that Nova has moved to another host
// since the run was interrupted. A reboot that the run asked for is waited out
// first: its domain is off in one moment and runs in the next.
func (t *task) stillHere(ctx context.Context) error {
	if t.s.cloud == nil {
		return nil
	}
	for end := time.Now().Add(t.s.e.Settings.RebootTimeout); ; pause(ctx, t.s.e.firstLook()) {
		server, err := t.s.cloud.Server(ctx, t.ip.UUID)
		switch {
		case errors.Is(err, ErrNoInstance):
			return nil
		case err != nil:
			return fmt.Errorf("ask Nova how it is: %w", err)
		case t.movedAway(server):
			return errMoved(server)
		case !rebooting(server):
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%w: Nova is still at it (%s)", errNotYet, server.TaskState)
		}
	}
}

// redoPutBack makes sure that a file that was lost while the guest ran is
// published before its guest, which has ended since, is started by anybody.
func (t *task) redoPutBack() {
	if t.ip.Action == ActionPutBack {
		t.ip.Action = ActionPublish
		t.ip.Found = StateShutOff
	}
}

// undoPrior leaves a guest whose QEMU never ended as the interrupted run found it.
func (t *task) undoPrior(ctx context.Context, d Domain) error {
	t.onFailure(stepCleanup, t.removePrior)
	if t.ip.Action == ActionLive {
		if err := t.undoLive(); err != nil {
			return err
		}
		defer t.forgetMoves()
	}
	if t.prior.freezeBegun {
		t.onFailure(stepThaw, t.thaw)
	}
	if t.prior.suspendBegun && t.ip.Found == StateRunning && d.State == StatePaused && d.PauseReason == PauseUser {
		t.onFailure(stepContinue, t.letGoOn)
	}
	return t.rollback(ctx)
}

// removePrior removes the copies that the interrupted run had staged: QEMU still
// has what they were copied from.
func (t *task) removePrior(context.Context) error {
	var errs error
	for _, c := range t.prior.staged {
		st, err := t.s.stages.reopen(c.Dir)
		if err == nil {
			err = st.dir.Remove(c.Name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

// replan looks at the instance as it is now, and does what that needs.
func (t *task) replan(ctx context.Context, d Domain) (Outcome, error) {
	d, err := t.s.e.Hypervisor.Domain(ctx, d.UUID)
	if err != nil {
		return OutcomeFailed, err
	}
	i, err := t.s.e.scanInstance(ctx, d)
	if err != nil {
		return OutcomeFailed, err
	}
	if i.Verdict == VerdictIntact && t.s.plan.Command != CommandBackup {
		return OutcomeRescued, t.settle(ctx, i)
	}
	if err := t.s.pin(ctx, i); err != nil {
		return OutcomeFailed, err
	}
	if i, err = t.s.attach(ctx, i); err != nil {
		return OutcomeFailed, err
	}
	c := choice{e: t.s.e, command: t.s.plan.Command, options: t.s.plan.Options, selected: selected{here: []Instance{i}}}
	plan, err := c.plan(ctx, t.s.cloud, true)
	if err != nil {
		return OutcomeFailed, err
	}
	found := t.ip.Found
	t.ip = plan.Instances[0]
	if t.sameProcess() && t.ip.Found != StateShutOff {
		t.ip.Found = found
	}
	if err := t.s.journal.Write(Record{Instance: t.ip.UUID, Step: stepPlan, Phase: PhaseDone}, t.ip); err != nil {
		return OutcomeFailed, err
	}
	t.prior = nil
	return t.fresh(ctx)
}

// settle ends the rescue of an instance that is in service already. What was
// copied and pinned is let go only if it runs on just that: somebody may have
// started it on older files meanwhile.
func (t *task) settle(ctx context.Context, i Instance) error {
	for _, f := range t.ip.Files {
		if !f.Writable {
			continue
		}
		n := slices.IndexFunc(i.Files, func(now File) bool { return now.Path == f.Path })
		if n < 0 || !t.s.publishedBefore(f, inode{i.Files[n].Device, i.Files[n].Inode}) {
			return fmt.Errorf("%w: it runs, but on another %s than the one that this run was restoring: the newest data is in the staged copies (%s) and with the keeper, and both are kept; if you do not need them, end the run by removing %s",
				ErrConflict, f.Path, t.stagedPlaces(), t.s.state.run(t.s.plan.Run))
		}
	}
	if t.ip.Action == ActionLive {
		if err := t.settleLive(ctx); err != nil {
			return err
		}
	}
	if t.prior.rebootBegun && !t.prior.pausedAgain && i.State == StateRunning {
		if err := t.pauseAsFound(ctx); err != nil {
			return err
		}
	}
	if err := t.step(ctx, stepCleanup, "", func() error { return t.removePrior(ctx) }); err != nil {
		return err
	}
	return t.unpin(ctx)
}

func (t *task) stagedPlaces() string {
	var places []string
	for _, c := range t.prior.copies {
		places = append(places, c.Dir+"/"+c.Name)
	}
	return strings.Join(places, ", ")
}
