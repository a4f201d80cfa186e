package recover

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// resume goes on with an instance from where an interrupted run left it, by what
// is there now. The journal only says what that run meant.
func (i *instance) resume(ctx context.Context) (Outcome, error) {
	t := i.t
	if t.plan.Action == ActionHardReboot {
		return OutcomeRescued, i.reboot.only(ctx)
	}
	if err := i.reboot.awaitStill(ctx); err != nil {
		return OutcomeFailed, err
	}
	d, err := i.guest.domain(ctx)
	if errors.Is(err, ErrNoDomain) {
		d, err = Domain{UUID: t.plan.UUID, Name: t.plan.Domain, State: StateShutOff}, nil
	}
	if err != nil {
		return OutcomeFailed, err
	}
	if d.State == StateShutOff {
		return i.restoreEnded(ctx)
	}
	if i.guest.sameProcess() {
		// Nothing was destroyed: back to how it was found, and from the beginning.
		if err := i.undoEarlier(ctx, d); err != nil {
			return OutcomeFailed, err
		}
	}
	return i.startOver(ctx)
}

// restoreEnded restores the files of a guest that has no QEMU any more.
func (i *instance) restoreEnded(ctx context.Context) (Outcome, error) {
	switch i.t.plan.Action {
	case ActionBackup:
		return OutcomeFailed, fmt.Errorf("%w: the guest ended before its backup was complete", ErrRefused)
	case ActionLive:
		if err := i.switchover.abandonEnded(ctx); err != nil {
			return OutcomeFailed, err
		}
	case ActionPutBack:
		// A file that was lost while the guest ran is published before its guest,
		// which has ended since, is started by anybody.
		i.t.amend(func(plan *InstancePlan) { plan.Action, plan.Found = ActionPublish, StateShutOff })
	}
	return OutcomeRescued, i.restoration.carryOut(ctx)
}

// undoEarlier leaves a guest whose QEMU never ended as the interrupted run found
// it; d is its domain as it is now.
func (i *instance) undoEarlier(ctx context.Context, d Domain) error {
	i.t.onFailure(stepCleanup, i.files.removeInherited)
	if i.t.plan.Action == ActionLive {
		if err := i.switchover.undoEarlier(); err != nil {
			return err
		}
		defer i.switchover.forgetEarlier()
	}
	if err := i.guest.undoEarlier(d); err != nil {
		return err
	}
	return i.t.rollback(ctx)
}

// startOver looks at the instance as it is now, and does what that needs.
func (i *instance) startOver(ctx context.Context) (Outcome, error) {
	t := i.t
	now, err := i.guest.look(ctx)
	if err != nil {
		return OutcomeFailed, err
	}
	if now.Verdict == VerdictIntact && t.run.plan.Command != CommandBackup {
		return OutcomeRescued, i.settle(ctx, now)
	}
	if err := t.run.pins.pin(ctx, now); err != nil {
		return OutcomeFailed, err
	}
	plan, err := i.replan(ctx, now)
	if err != nil {
		return OutcomeFailed, err
	}
	found := t.plan.Found
	t.beginAnew(plan)
	if i.guest.sameProcess() && plan.Found != StateShutOff {
		t.amend(func(plan *InstancePlan) { plan.Found = found })
	}
	if err := t.run.log.Write(Record{Instance: plan.UUID, Step: stepPlan, Phase: PhaseDone}, t.plan); err != nil {
		return OutcomeFailed, err
	}
	return i.fresh(ctx)
}

// settle ends the rescue of an instance that is in service already. What was
// copied and pinned is let go only if it runs on just that: somebody may have
// started it on older files meanwhile. ErrConflict when it does not.
func (i *instance) settle(ctx context.Context, now Instance) error {
	t := i.t
	for _, f := range t.written() {
		n := slices.IndexFunc(now.Files, func(file File) bool { return file.Path == f.Path })
		if n < 0 || !t.publishedBefore(f, inode{now.Files[n].Device, now.Files[n].Inode}) {
			return fmt.Errorf("%w: it runs, but on another %s than the one that this run was restoring: "+
				"the newest data is in the staged copies (%s) and with the keeper, and both are kept; "+
				"if you do not need them, end the run by removing %s", ErrConflict, f.Path, i.files.inheritedPlaces(), t.run.stateDir.run(t.run.plan.Run))
		}
	}
	if t.plan.Action == ActionLive {
		if err := i.switchover.settleEarlier(ctx); err != nil {
			return err
		}
	}
	if t.history.rebootBegun && !t.history.pausedAgain && now.State == StateRunning {
		if err := i.reboot.pauseAsFound(ctx); err != nil {
			return err
		}
	}
	if err := t.step(ctx, stepCleanup, "", func() error { return i.files.removeInherited(ctx) }); err != nil {
		return err
	}
	return unpin(ctx, t)
}

// undoKilled is undoEarlier for a run that was killed just now. A guest that has
// ended since is left to resume: its pins are what counts now.
func (i *instance) undoKilled(ctx context.Context) error {
	if !i.guest.sameProcess() {
		return nil
	}
	d, err := i.guest.domain(ctx)
	if err != nil {
		return err
	}
	return i.undoEarlier(ctx, d)
}
