package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// refusedBecause is ErrRefused for a reason.
func refusedBecause(reason string) error { return fmt.Errorf("%w: %s", recover.ErrRefused, reason) }

// Quiesce brings the guest to where it writes nothing and all that it wrote can be read:
// suspended, and its file systems frozen before if its agent answers. A guest that has
// ended meanwhile is as quiet as can be: the task's state says so, and it is no error.
// recover.ErrRefused when it must not be suspended, recover.ErrOlder when it has written
// since a backup that is to be restored.
func (g *Guest) Quiesce(ctx context.Context) error {
	d, err := g.Domain(ctx)
	if isOff(d, err) {
		return g.noteEnd(ctx, d)
	}
	if err != nil {
		return err
	}
	if err := g.MayBeHandled(d); err != nil {
		return err
	}
	if d.State == recover.StateRunning {
		g.freeze(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		err := g.suspend(ctx)
		if g.t.State().HasEnded() {
			g.t.ForgetUndos() // nobody is there to be thawed or resumed
			return errors.Join(err, ctx.Err())
		}
		if err != nil {
			return err
		}
	}
	if g.before, err = g.snapshot(ctx); err != nil {
		return err
	}
	if r := g.t.Plan.Restored; r != nil && !r.Unchanged(g.before) && !g.t.Run.Plan.Options.AcceptOlder {
		return fmt.Errorf("%w: the guest has written since the plan was made", recover.ErrOlder)
	}
	return nil
}

// noteEnd notes that the domain, which is d, has no QEMU any more. A guest that has ended by
// itself in the middle of its rescue stays off; one whose QEMU has crashed did not want that.
func (g *Guest) noteEnd(ctx context.Context, d recover.Domain) error {
	if g.t.DestroyedBefore() {
		g.since = g.t.History.Suspended
		return g.t.Enter(ctx, task.EventEnded)
	}
	if g.t.Plan.Process.PID != 0 && (d.Crashed || g.t.History != nil && g.t.History.Crashed) {
		return errors.Join(g.noteCrash(ctx), g.t.Enter(ctx, task.EventEnded))
	}
	if g.t.Run.Plan.Command == recover.CommandRescue && g.t.Plan.Action == recover.ActionReboot {
		return g.t.Enter(ctx, task.EventPowerOff)
	}
	return g.t.Enter(ctx, task.EventEnded)
}

// freeze asks for clean file systems. Without an agent, or when it fails, the
// copy is as consistent as a disk after a power cut, which is what the guest's
// journal is for: no reason to stop.
func (g *Guest) freeze(ctx context.Context) {
	t := g.t
	limit := t.Run.Settings.FreezeTimeout
	if limit <= 0 || t.Run.Plan.Options.KeepPaused {
		return // whoever lets the guest go on later would find it frozen
	}
	agent := true
	err := t.Step(ctx, journal.StepFreeze, "", func() error {
		err := t.Run.Hypervisor.Freeze(ctx, t.Plan.UUID, limit)
		if errors.Is(err, recover.ErrNoAgent) {
			zerolog.Ctx(ctx).Debug().Err(err).Msg("not frozen")
			agent, err = false, nil
		}
		return err
	})
	if !agent {
		return
	}
	if err == nil || ctx.Err() != nil {
		t.OnFailure(journal.StepThaw, g.thaw)
		return
	}
	t.Notef("the guest agent could not freeze the file systems (%v): the copy is like a disk after a power cut", err)
	if err := t.UndoNow(ctx, journal.StepThaw, g.thaw); err != nil {
		t.Notef("and thawing them failed: %v", err)
	}
}

func (g *Guest) thaw(ctx context.Context) error {
	err := g.t.Run.Hypervisor.Thaw(ctx, g.t.Plan.UUID, g.t.Run.Settings.FreezeTimeout)
	if errors.Is(err, recover.ErrNoAgent) || errors.Is(err, recover.ErrNoDomain) {
		return nil
	}
	return err
}

// Hold suspends a guest that runs, and returns the state that it was in. Its mirrors may
// have taken hours: its owner may have paused it meanwhile, and then it is left so; QEMU
// may have paused it for an I/O error (recover.ErrRefused); it may have ended (ErrEnded).
func (g *Guest) Hold(ctx context.Context) (recover.DomainState, error) {
	d, err := g.Domain(ctx)
	switch {
	case err != nil:
		return "", err
	case d.State == recover.StatePaused && d.PauseReason == recover.PauseUser:
		return d.State, nil
	case d.State != recover.StateRunning:
		return d.State, fmt.Errorf("%w: while it was mirrored it has become %s (%s)", recover.ErrRefused, d.State, d.PauseReason)
	}
	err = g.suspend(ctx)
	if g.t.State().HasEnded() {
		g.t.TakeUndos(journal.StepContinue)
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = ErrEnded
		}
	}
	return d.State, err
}

// suspend suspends the guest. When it has ended instead that is no error, and the
// task's state says so.
func (g *Guest) suspend(ctx context.Context) error {
	t, hv := g.t, g.t.Run.Hypervisor
	if err := t.Enter(ctx, task.EventSuspend); err != nil {
		return err
	}
	t.OnFailure(journal.StepContinue, g.letGoOn)
	g.since = time.Now()
	err := t.Step(ctx, journal.StepSuspend, "", func() error { return hv.Suspend(ctx, t.Plan.UUID) })
	d, derr := g.Domain(ctx)
	switch {
	case isOff(d, derr):
		return g.noteEnd(ctx, d)
	case err != nil:
		return err
	case derr != nil:
		return derr
	case d.State != recover.StatePaused || d.PauseReason != recover.PauseUser:
		return fmt.Errorf("%w: after its suspend the domain is %s (%s)", recover.ErrRefused, d.State, d.PauseReason)
	}
	return nil
}

// How long a call of a process that was killed may take to reach the domain, and how long
// another one may have the domain to itself.
const (
	callGrace = time.Second
	callLimit = time.Minute
)

// AfterSuspend returns the domain as it is when a suspend that a killed run may have asked
// for just now has come about, or does not come any more: libvirt carries a call out also when the caller is
// gone. It does one thing at a time to a domain, and the others wait (virDomainObjBeginJob in
// libvirt's src/conf/virdomainjob.c): who gets the domain's counters comes after the suspend.
func (g *Guest) AfterSuspend(ctx context.Context) (recover.Domain, error) {
	if g.t.History == nil || !g.t.History.Suspending {
		return g.Domain(ctx)
	}
	began := time.Now()
	since := began // when the domain was last seen to do as it is asked at once
	for {
		asked := time.Now()
		_, cerr := g.t.Run.Hypervisor.Counters(ctx, g.t.Plan.UUID)
		if time.Since(asked) > callGrace/4 {
			since = time.Now() // somebody else's call was carried out, and others may be waiting
		}
		d, err := g.Domain(ctx)
		// The suspend may not have begun. Under a job, as a dump or a migration, libvirt answers
		// questions, and a suspend waits for its end.
		over := time.Since(since) > callGrace
		if cerr != nil || err != nil || d.Job != "" {
			over = time.Since(began) > callLimit
		}
		if isOff(d, err) || err == nil && d.State != recover.StateRunning || ctx.Err() != nil || over {
			return d, err
		}
		recover.Pause(ctx, 50*time.Millisecond)
	}
}

// UndoEarlier notes, for the task's Rollback, how the freeze and the suspend of an
// interrupted run are undone; d is the domain as it is now.
func (g *Guest) UndoEarlier(ctx context.Context, d recover.Domain) error {
	t := g.t
	if t.History.FreezeBegun {
		t.OnFailure(journal.StepThaw, g.thaw)
	}
	suspended := d.State == recover.StatePaused && d.PauseReason == recover.PauseUser
	if !t.History.SuspendBegun || t.Plan.Found != recover.StateRunning || !suspended {
		return nil
	}
	t.OnFailure(journal.StepContinue, g.letGoOn)
	return t.Enter(ctx, task.EventSuspend)
}

// letGoOn undoes the suspend of a guest that ran.
func (g *Guest) letGoOn(ctx context.Context) error {
	err := g.t.Run.Hypervisor.Resume(ctx, g.t.Plan.UUID)
	if !g.since.IsZero() {
		pause := time.Since(g.since)
		g.t.SetPause(pause)
		g.t.SetDowntime(pause)
	}
	if err != nil && !isOff(g.Domain(ctx)) { // or else there is nobody to let go on
		return err
	}
	return g.t.Enter(ctx, task.EventGoOn)
}

// snapshot notes how much the guest has written.
func (g *Guest) snapshot(ctx context.Context) (recover.Snapshot, error) {
	c, err := g.t.Run.Hypervisor.Counters(ctx, g.t.Plan.UUID)
	return recover.Snapshot{Process: g.t.Plan.Process, Taken: time.Now().UTC(), Counters: c}, err
}

// StillQuiet makes sure, right before the destroy, that the copies are of what the guest
// has now: nobody has let it go on in between. recover.ErrUnproven when somebody has.
// ErrEnded when the guest has ended: then only the undo of the copies is left, and the
// copies are to be proven again.
func (g *Guest) StillQuiet(ctx context.Context) error {
	d, err := g.Domain(ctx)
	if isOff(d, err) {
		g.t.KeepUndos(journal.StepCleanup)
		if err := g.noteEnd(ctx, d); err != nil {
			return err
		}
		return ErrEnded
	}
	if err != nil {
		return err
	}
	if d.State != recover.StatePaused || d.PauseReason != recover.PauseUser || !g.SameProcess() {
		return fmt.Errorf("%w: somebody let the domain go on while it was copied (it is %s)", recover.ErrUnproven, d.State)
	}
	now, err := g.snapshot(ctx)
	if err != nil {
		return err
	}
	if !g.before.Unchanged(now) {
		return fmt.Errorf("%w: the guest has written since it was suspended: somebody let it go on in between", recover.ErrUnproven)
	}
	return nil
}
