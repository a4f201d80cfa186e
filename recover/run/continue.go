package run

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/run/hardreboot"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// resume goes on with an instance from where an interrupted run left it, by what
// is there now. The journal only says what that run meant.
func (i *instance) resume(ctx context.Context) (recover.Outcome, error) {
	t := i.t
	switch t.Plan.Action {
	case recover.ActionHardReboot:
		return recover.OutcomeRescued, i.reboot.Only(ctx)
	case recover.ActionDirectories:
		return recover.OutcomeIntact, staging.OwnDirectories(ctx, t)
	}
	err := task.NotDeleted(ctx, t)
	if err == nil {
		err = i.reboot.AwaitStill(ctx)
	}
	if errors.Is(err, recover.ErrDeleted) || errors.Is(err, hardreboot.ErrMoved) {
		return recover.OutcomeFailed, i.giveUp(ctx, err)
	}
	if err != nil {
		return recover.OutcomeFailed, err
	}
	d, err := i.guest.Domain(ctx)
	if errors.Is(err, recover.ErrNoDomain) {
		d, err = recover.Domain{UUID: t.Plan.UUID, Name: t.Plan.Domain, State: recover.StateShutOff}, nil
	}
	if err != nil {
		return recover.OutcomeFailed, err
	}
	if d.State == recover.StateShutOff {
		return i.restoreEnded(ctx)
	}
	if i.guest.SameProcess() {
		// Nothing was destroyed: back to how it was found, and from the beginning.
		if err := i.undoEarlier(ctx, d); err != nil {
			return recover.OutcomeFailed, err
		}
	}
	return i.startOver(ctx)
}

// giveUp leaves an instance as the interrupted run found it, as far as that goes, because
// nobody may bring it back here. It returns why, as the last word of the run; not so when
// the guest is in the middle of something that can't be undone.
func (i *instance) giveUp(ctx context.Context, why error) error {
	over := &task.Final{Err: why, Next: "When nobody needs what the run holds and has staged of it: " + task.LetGo(i.t.Run.Plan.Run)}
	d, err := i.guest.Domain(ctx)
	switch {
	case errors.Is(err, recover.ErrNoDomain) || err == nil && d.State == recover.StateShutOff || !i.guest.SameProcess():
		return over
	case err != nil:
		return errors.Join(why, err)
	case len(i.t.History.Pivoting) > 0:
		return fmt.Errorf("%w; its guest runs, or is suspended, on new disks", why)
	}
	if err := i.undoEarlier(ctx, d); err != nil {
		return errors.Join(why, err)
	}
	return over
}

// restoreEnded restores the files of a guest that has no QEMU any more.
func (i *instance) restoreEnded(ctx context.Context) (recover.Outcome, error) {
	switch action := i.t.Plan.Action; {
	case action == recover.ActionBackup:
		err := fmt.Errorf("%w: the guest ended before its backup was complete; the keeper holds what was lost: a rescue restores it",
			recover.ErrRefused)
		if derr := i.backup.RemoveBegun(); derr != nil {
			return recover.OutcomeFailed, errors.Join(err, derr)
		}
		return recover.OutcomeFailed, &task.Final{Err: err}
	case action == recover.ActionLive:
		if err := i.switchover.AbandonEnded(ctx); err != nil {
			return recover.OutcomeFailed, err
		}
	case action.RunsOn():
		// A file that was lost while the guest ran is published before its guest,
		// which has ended since, is started by anybody.
		i.t.Amend(func(plan *recover.InstancePlan) {
			plan.Action, plan.Found = recover.ActionPublish, recover.StateShutOff
		})
	}
	if err := i.relink(ctx); err != nil {
		return recover.OutcomeFailed, err
	}
	return recover.OutcomeRescued, i.restoration.CarryOut(ctx)
}

// undoEarlier leaves a guest whose QEMU never ended as the interrupted run found
// it; d is its domain as it is now.
func (i *instance) undoEarlier(ctx context.Context, d recover.Domain) error {
	i.t.OnFailure(journal.StepCleanup, i.files.RemoveInherited)
	return i.undoGuest(ctx, d)
}

// undoGuest is undoEarlier for all but the copies.
func (i *instance) undoGuest(ctx context.Context, d recover.Domain) error {
	if i.t.Plan.Action == recover.ActionLive {
		if err := i.switchover.UndoEarlier(); err != nil {
			return err
		}
		defer i.switchover.ForgetEarlier()
	}
	if err := i.guest.UndoEarlier(ctx, d); err != nil {
		return err
	}
	return i.t.Rollback(ctx)
}

// startOver looks at the instance as it is now, and does what that needs.
func (i *instance) startOver(ctx context.Context) (recover.Outcome, error) {
	t := i.t
	if t.Plan.Action == recover.ActionLive {
		// First of all: what is held of a disk that is not proven counts against the new one.
		if _, err := i.switchover.KeepOld(ctx); err != nil {
			return recover.OutcomeFailed, err
		}
	}
	now, err := i.guest.Look(ctx)
	if err != nil {
		return recover.OutcomeFailed, err
	}
	if now.IsWhole() && now.Verdict != recover.VerdictUnaffected && t.Run.Plan.Command != recover.CommandBackup {
		return recover.OutcomeRescued, i.settle(ctx, now)
	}
	if err := t.Run.Pins.Pin(ctx, now); err != nil {
		return recover.OutcomeFailed, err
	}
	plan, err := i.replan(ctx, now)
	if err != nil {
		return recover.OutcomeFailed, err
	}
	found := t.Plan.Found
	t.Amend(func(p *recover.InstancePlan) { *p = plan })
	if i.guest.SameProcess() && plan.Found != recover.StateShutOff {
		t.Amend(func(plan *recover.InstancePlan) { plan.Found = found })
	}
	if err := t.Run.Log.Write(journal.Record{Instance: plan.UUID, Step: journal.StepPlan, Phase: recover.PhaseDone}, t.Plan); err != nil {
		return recover.OutcomeFailed, err
	}
	t.BeginAnew() // not before: until the journal has the new plan, a resume goes on with the old one
	return i.fresh(ctx)
}

// settle ends the rescue of an instance that is in service already. Its copies
// and pins are let go only if it runs on those very copies: somebody may have started it
// on older files meanwhile. ErrConflict when it does not.
func (i *instance) settle(ctx context.Context, now recover.Instance) error {
	t := i.t
	if t.History.Crashed {
		i.guest.TellCrash()
	}
	for _, f := range t.Written() {
		if f.Role == recover.RoleNVRAM && t.Run.Cloud != nil {
			continue // Nova has made it anew, which was agreed to (staging.IsOpen)
		}
		n := slices.IndexFunc(now.Files, func(file recover.File) bool { return file.Path == f.Path })
		if n < 0 || !t.PublishedBefore(f, now.Files[n].Identity(), len(now.Files[n].Holders) > 0) ||
			f.Role == recover.RoleDisk && !isWrittenBy(now.PID, now.Files[n]) {
			where := "with the keeper, which goes on holding it"
			if places := i.files.InheritedPlaces(); places != "" {
				where = "in the staged copies (" + places + ") and with the keeper, and both are kept"
			}
			return fmt.Errorf("%w: it runs, but on another %s than the one that this run was restoring: the newest data is %s; "+
				"to leave it so, end the run: os-rescue resume --abandon %s",
				recover.ErrConflict, f.Path, where, t.Run.Plan.Run)
		}
	}
	if t.Plan.Action == recover.ActionLive {
		if err := i.switchover.SettleEarlier(ctx); err != nil {
			return err
		}
	}
	if t.History.RebootBegun && !t.History.PausedAgain && now.State == recover.StateRunning {
		if err := i.reboot.PauseAsFound(ctx); err != nil {
			return err
		}
	}
	if err := t.Step(ctx, journal.StepCleanup, "", func() error { return i.files.RemoveInherited(ctx) }); err != nil {
		return err
	}
	staging.MendDirectories(ctx, t)
	return staging.Unpin(ctx, t)
}

// isWrittenBy is true when a process has a file open for writing.
func isWrittenBy(pid int, f recover.File) bool {
	return slices.ContainsFunc(f.Holders, func(h recover.Holder) bool { return h.PID == pid && h.Writable })
}

// undoKilledGuest is undoGuest for a run that was killed just now. A guest that has ended
// since is left to resume: its pins are what counts now.
func (i *instance) undoKilledGuest(ctx context.Context) error {
	if !i.guest.SameProcess() {
		return nil
	}
	d, err := i.guest.AfterSuspend(ctx)
	if err != nil {
		return err
	}
	return i.undoGuest(ctx, d)
}

// undoKilledCopies removes the copies of a run that was killed just now. They are those of
// a guest that goes on, and no longer of what it has.
func (i *instance) undoKilledCopies(ctx context.Context) error {
	if !i.guest.SameProcess() {
		return nil
	}
	i.t.OnFailure(journal.StepCleanup, i.files.RemoveInherited)
	return i.t.Rollback(ctx)
}
