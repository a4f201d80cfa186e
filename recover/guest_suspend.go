package recover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
)

// refusedBecause is ErrRefused for a reason.
func refusedBecause(reason string) error { return fmt.Errorf("%w: %s", ErrRefused, reason) }

// quiesce brings the guest to where it writes nothing and all it wrote can be
// read: suspended, its file systems frozen first if its agent answers. A guest
// that has ended meanwhile is as quiet as can be: the task's state says so.
// ErrRefused when it must not be suspended, ErrOlder when it has written since a
// backup that is to be restored.
func (g *guest) quiesce(ctx context.Context) error {
	d, err := g.domain(ctx)
	if isOff(d, err) {
		return g.noteEnd()
	}
	if err != nil {
		return err
	}
	if err := g.mayBeHandled(d); err != nil {
		return err
	}
	if d.State == StateRunning {
		g.freeze(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		err := g.suspend(ctx)
		if g.t.state().hasEnded() {
			g.t.forgetUndos() // nobody is there to be thawed or resumed
			return errors.Join(err, ctx.Err())
		}
		if err != nil {
			return err
		}
	}
	if g.before, err = g.snapshot(ctx); err != nil {
		return err
	}
	if r := g.t.plan.Restored; r != nil && !r.unchanged(g.before) && !g.t.run.plan.Options.AcceptOlder {
		return fmt.Errorf("%w: the guest has written since the plan was made", ErrOlder)
	}
	return nil
}

// noteEnd notes that the domain has no QEMU any more. A guest that has ended by
// itself in the middle of its rescue stays off.
func (g *guest) noteEnd() error {
	if g.t.destroyedBefore() {
		g.since = g.t.history.suspended
		return g.t.enter(eventEnded)
	}
	if g.t.run.plan.Command == CommandRescue && g.t.plan.Action == ActionReboot {
		return g.t.enter(eventPowerOff)
	}
	return g.t.enter(eventEnded)
}

// freeze asks for clean file systems. Without an agent, or when it fails, the
// copy is as consistent as a disk after a power cut, which is what the guest's
// journal is for: no reason to stop.
func (g *guest) freeze(ctx context.Context) {
	t := g.t
	limit := t.run.settings.FreezeTimeout
	if limit <= 0 || t.run.plan.Options.KeepPaused {
		return // whoever lets the guest go on later would find it frozen
	}
	agent := true
	err := t.step(ctx, stepFreeze, "", func() error {
		err := t.run.hypervisor.Freeze(ctx, t.plan.UUID, limit)
		if errors.Is(err, ErrNoAgent) {
			zerolog.Ctx(ctx).Debug().Err(err).Msg("not frozen")
			agent, err = false, nil
		}
		return err
	})
	if !agent {
		return
	}
	if err == nil || ctx.Err() != nil {
		t.onFailure(stepThaw, g.thaw)
		return
	}
	t.notef("the guest agent could not freeze the file systems (%v): the copy is like a disk after a power cut", err)
	if err := t.undoNow(ctx, stepThaw, g.thaw); err != nil {
		t.notef("and thawing them failed: %v", err)
	}
}

func (g *guest) thaw(ctx context.Context) error {
	err := g.t.run.hypervisor.Thaw(ctx, g.t.plan.UUID, g.t.run.settings.FreezeTimeout)
	if errors.Is(err, ErrNoAgent) || errors.Is(err, ErrNoDomain) {
		return nil
	}
	return err
}

// hold suspends a guest that runs, and returns the state that it was in. Its
// mirrors may have taken hours: its owner may have paused it meanwhile, or QEMU for
// an I/O error. errGuestEnded, ErrRefused.
func (g *guest) hold(ctx context.Context) (DomainState, error) {
	d, err := g.domain(ctx)
	switch {
	case err != nil:
		return "", err
	case d.State == StatePaused && d.PauseReason == PauseUser:
		return d.State, nil
	case d.State != StateRunning:
		return d.State, fmt.Errorf("%w: while it was mirrored it has become %s (%s)", ErrRefused, d.State, d.PauseReason)
	}
	err = g.suspend(ctx)
	if g.t.state().hasEnded() {
		g.t.takeUndos(stepContinue)
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = errGuestEnded
		}
	}
	return d.State, err
}

// suspend suspends the guest. When it has ended instead that is no error, and the
// task's state says so.
func (g *guest) suspend(ctx context.Context) error {
	t, hv := g.t, g.t.run.hypervisor
	if err := t.enter(eventSuspend); err != nil {
		return err
	}
	t.onFailure(stepContinue, g.letGoOn)
	g.since = time.Now()
	err := t.step(ctx, stepSuspend, "", func() error { return hv.Suspend(ctx, t.plan.UUID) })
	d, derr := g.domain(ctx)
	switch {
	case isOff(d, derr):
		return g.noteEnd()
	case err != nil:
		return err
	case derr != nil:
		return derr
	case d.State != StatePaused || d.PauseReason != PauseUser:
		return fmt.Errorf("%w: after its suspend the domain is %s (%s)", ErrRefused, d.State, d.PauseReason)
	}
	return nil
}

// undoEarlier notes how the freeze and the suspend of an interrupted run are
// undone; d is the domain as it is now.
func (g *guest) undoEarlier(d Domain) error {
	t := g.t
	if t.history.freezeBegun {
		t.onFailure(stepThaw, g.thaw)
	}
	if !t.history.suspendBegun || t.plan.Found != StateRunning || d.State != StatePaused || d.PauseReason != PauseUser {
		return nil
	}
	t.onFailure(stepContinue, g.letGoOn)
	return t.enter(eventSuspend)
}

// letGoOn undoes the suspend of a guest that ran.
func (g *guest) letGoOn(ctx context.Context) error {
	err := g.t.run.hypervisor.Resume(ctx, g.t.plan.UUID)
	if !g.since.IsZero() {
		pause := time.Since(g.since)
		g.t.setPause(pause)
		g.t.setDowntime(pause)
	}
	if err != nil && !isOff(g.domain(ctx)) { // or else there is nobody to let go on
		return err
	}
	return g.t.enter(eventGoOn)
}

// snapshot notes how much the guest has written.
func (g *guest) snapshot(ctx context.Context) (Snapshot, error) {
	c, err := g.t.run.hypervisor.Counters(ctx, g.t.plan.UUID)
	return Snapshot{Process: g.t.plan.Process, Taken: time.Now().UTC(), Counters: c}, err
}

// stillQuiet makes sure, right before the destroy, that the copies are of what the
// guest has now: nobody has let it go on in between. errGuestEnded when it has
// ended: then only the undo of the copies is left, and the copies are to be proven
// again. ErrUnproven when it went on.
func (g *guest) stillQuiet(ctx context.Context) error {
	d, err := g.domain(ctx)
	if isOff(d, err) {
		g.t.keepUndos(stepCleanup)
		if err := g.noteEnd(); err != nil {
			return err
		}
		return errGuestEnded
	}
	if err != nil {
		return err
	}
	if d.State != StatePaused || d.PauseReason != PauseUser || !g.sameProcess() {
		return fmt.Errorf("%w: somebody let the domain go on while it was copied (it is %s)", ErrUnproven, d.State)
	}
	now, err := g.snapshot(ctx)
	if err != nil {
		return err
	}
	if !g.before.unchanged(now) {
		return fmt.Errorf("%w: the guest has written since it was suspended: somebody let it go on in between", ErrUnproven)
	}
	return nil
}
