package recover

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"
)

// instance is the whole work on one instance of a run: it chooses the way, and says
// how it ended.
type instance struct {
	t     *task
	guest *guest
	files *set

	reboot      *reboot
	backup      *backup
	restoration *restoration
	switchover  *switchover
	// replan makes a new plan from what an instance is now.
	replan func(ctx context.Context, i Instance) (InstancePlan, error)
}

// workshop is what the work on each instance of a run needs besides the run.
type workshop struct {
	dirs   *directories
	once   *oncePerRun
	backup *backupDir // nil when the run keeps no backup
	replan func(ctx context.Context, i Instance) (InstancePlan, error)
}

// newInstance returns the work on an instance of the run's plan.
func newInstance(r *run, w workshop, plan InstancePlan) *instance {
	t := newTask(r, plan)
	g := newGuest(t, func() (string, error) {
		if r.plan.Command == CommandRestore {
			return storedXML(r.plan.Options.BackupDir, plan.UUID)
		}
		return guardDirIn(r.settings.StateDir).definition(plan.UUID)
	})
	files := newSet(t, w.dirs, w.once)
	i := &instance{t: t, guest: g, files: files, replan: w.replan,
		reboot:     newReboot(t, g, files),
		backup:     newBackup(t, g, w.backup, w.once),
		switchover: newSwitchover(t, g, files, w.dirs)}
	i.restoration = newRestoration(t, g, files, i.backup, i.reboot)
	return i
}

// Close closes what the work has open.
func (i *instance) Close() { i.switchover.Close() }

// do works the instance's plan off. refused says why it is to be left alone; nil
// when it is not. settled is false when the instance is left neither in service nor
// as it was found.
func (i *instance) do(ctx context.Context, refused error) (report InstanceReport, settled bool) {
	t := i.t
	log := zerolog.Ctx(ctx).With().Str("instance", t.plan.UUID).Str("domain", t.plan.Domain).Logger()
	ctx = log.WithContext(ctx)
	switch {
	case t.plan.Action == ActionRefuse:
		return t.end(OutcomeSkipped, t.fail(refusal(t.plan.Refusal), "Nothing of it was touched", "")), true
	case t.plan.Action == ActionNone:
		return t.end(OutcomeIntact, nil), true
	case ctx.Err() != nil && t.history == nil:
		return t.end(OutcomeSkipped, t.fail(fmt.Errorf("interrupted before it began: %w", ctx.Err()),
			"Nothing of it was touched; its lost files stay held by the keeper", "Run the command again")), true
	case refused != nil && t.history == nil:
		return t.end(OutcomeSkipped, t.fail(refused, "Nothing of it was touched; its lost files stay held until this run ends", "")), true
	}
	outcome, err := i.run(ctx)
	if err != nil {
		log.Debug().Err(err).Str("state", string(t.state())).Msg("the instance failed")
		return i.failed(ctx, err)
	}
	if t.state() == stateStoppedByNova {
		off := errors.New("its files are back and proven, but it is off: " +
			"nova-compute has it as stopped, and ends it whenever libvirt starts it")
		return t.end(OutcomeFailed, t.fail(off, "No data is lost",
			"Have Nova start it: os-rescue reboot --instance "+t.plan.UUID+" --state SHUTOFF")), true
	}
	return t.end(outcome, nil), true
}

// failed leaves an instance whose work has failed as it was found, if it may, and
// says what is safe.
func (i *instance) failed(ctx context.Context, err error) (report InstanceReport, settled bool) {
	t, resume := i.t, "os-rescue resume "+i.t.run.plan.Run
	switch {
	case t.plan.Action == ActionHardReboot:
		return i.reboot.failed(err)
	case t.state() == stateOldKept:
		return t.end(OutcomeFailed, t.fail(errors.Join(err, unpin(context.WithoutCancel(ctx), t)),
			"It runs on its new disk, and the disk as it was before is in a file beside it",
			"Compare the two, and tell os-rescue's developers")), true
	case t.state().isCommitted():
		return t.end(OutcomeFailed, t.fail(err, i.files.whatIsSafe(ctx), "When the cause is gone: "+resume)), false
	case i.guest.endedMeanwhile():
		return t.end(OutcomeFailed, t.fail(err, i.files.whatIsSafe(ctx)+"; the guest ended in the middle", "Go on with: "+resume)), false
	}
	if rerr := t.rollback(ctx); rerr != nil {
		return t.end(OutcomeFailed, t.fail(errors.Join(err, fmt.Errorf("and putting it back as it was found failed: %w", rerr)),
			"Nothing was destroyed: its QEMU still has every byte, and the keeper holds the lost files",
			"See how it is with `virsh domstate "+t.plan.Domain+"`, then: "+resume)), false
	}
	if t.history != nil {
		// Not yet as it was found: only a plan made anew begins after all is undone.
		return t.end(OutcomeFailed, t.fail(err, i.files.whatIsSafe(ctx), "When the cause is gone: "+resume)), false
	}
	outcome, next := OutcomeFailed, "When the cause is gone, run the command again"
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrConflict) {
		outcome, next = OutcomeSkipped, ""
	}
	return t.end(outcome, t.fail(err, "Nothing was destroyed: it is as it was found, and the keeper holds its lost files", next)), true
}

// run chooses the way: afresh, or on from where an interrupted run ended.
func (i *instance) run(ctx context.Context) (Outcome, error) {
	if i.t.history != nil {
		return i.resume(ctx)
	}
	return i.fresh(ctx)
}

func (i *instance) fresh(ctx context.Context) (Outcome, error) {
	t := i.t
	switch t.plan.Action {
	case ActionNone:
		return OutcomeIntact, unpin(ctx, t)
	case ActionRefuse:
		return OutcomeSkipped, refusal(t.plan.Refusal)
	case ActionBackup:
		return OutcomeRescued, i.backup.take(ctx)
	case ActionHardReboot:
		return OutcomeRescued, i.reboot.only(ctx)
	case ActionLive:
		t.setMode(ModeLive)
		err := i.switchover.carryOut(ctx)
		if errors.Is(err, errEndedWhileMirrored) {
			err = i.restoration.carryOut(ctx)
		}
		return OutcomeRescued, err
	case ActionReboot:
		if t.run.plan.Command == CommandRescue {
			t.setMode(ModeReboot)
		}
		if why := t.plan.NotLive; why != "" {
			zerolog.Ctx(ctx).Info().Str("reason", why).Msg("not rescued live")
			t.notef("not rescued live: %s", why)
		}
	}
	return OutcomeRescued, i.restoration.carryOut(ctx)
}
