package recover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// quiesce brings the guest to where it writes nothing and all it wrote can be
// read: suspended, its file systems frozen first if its agent answers. A guest
// that has ended by itself meanwhile is as quiet as can be.
func (t *task) quiesce(ctx context.Context) error {
	d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
	if errors.Is(err, ErrNoDomain) {
		d.State, err = StateShutOff, nil
	}
	if err != nil {
		return err
	}
	if d.State == StateShutOff {
		t.ended()
		return nil
	}
	if reason := handsOff(d); reason != "" {
		return fmt.Errorf("%w: %s", ErrRefused, reason)
	}
	if !t.sameProcess() || d.PID != t.ip.Process.PID {
		return fmt.Errorf("%w: its QEMU is another process than the one that was scanned: run the command again", ErrRefused)
	}
	if d.State == StateRunning {
		t.freeze(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.suspend(ctx); err != nil {
			return err
		}
	}
	if t.off {
		return nil
	}
	if t.before, err = t.snapshot(ctx); err != nil {
		return err
	}
	if r := t.ip.Restored; r != nil && !r.unchanged(t.before) && !t.s.plan.Options.AcceptOlder {
		return fmt.Errorf("%w: the guest has written since the plan was made", ErrOlder)
	}
	return nil
}

// ended notes that the domain has no QEMU any more.
func (t *task) ended() {
	t.off = true
	destroyed := t.prior != nil && t.prior.destroyBegun
	if destroyed {
		t.suspended = t.prior.suspended
	}
	t.stayOff = t.s.plan.Command == CommandRescue && t.ip.Action == ActionReboot && !destroyed
}

// freeze asks for clean file systems. Without an agent, or when it fails, the
// copy is as consistent as a disk after a power cut, which is what the guest's
// journal is for: no reason to stop.
func (t *task) freeze(ctx context.Context) {
	limit := t.s.e.Settings.FreezeTimeout
	if limit <= 0 || t.s.plan.Options.KeepPaused {
		return // whoever lets the guest go on later would find it frozen
	}
	agent := true
	err := t.step(ctx, stepFreeze, "", func() error {
		err := t.s.e.Hypervisor.Freeze(ctx, t.ip.UUID, limit)
		if errors.Is(err, ErrNoAgent) {
			zerolog.Ctx(ctx).Debug().Err(err).Msg("not frozen")
			agent, err = false, nil
		}
		return err
	})
	if !agent {
		return
	}
	thaw := undo{stepThaw, t.thaw}
	if err == nil || ctx.Err() != nil {
		t.undos = append(t.undos, thaw)
		return
	}
	t.notef("the guest agent could not freeze the file systems (%v): the copy is like a disk after a power cut", err)
	if err := t.undoOne(ctx, thaw); err != nil {
		t.notef("and thawing them failed: %v", err)
	}
}

func (t *task) thaw(ctx context.Context) error {
	err := t.s.e.Hypervisor.Thaw(ctx, t.ip.UUID, t.s.e.Settings.FreezeTimeout)
	if errors.Is(err, ErrNoAgent) || errors.Is(err, ErrNoDomain) {
		return nil
	}
	return err
}

func (t *task) suspend(ctx context.Context) error {
	hv := t.s.e.Hypervisor
	t.onFailure(stepContinue, t.letGoOn)
	t.suspended = time.Now()
	err := t.step(ctx, stepSuspend, "", func() error { return hv.Suspend(ctx, t.ip.UUID) })
	d, derr := hv.Domain(ctx, t.ip.UUID)
	switch {
	case errors.Is(derr, ErrNoDomain), derr == nil && d.State == StateShutOff:
		t.ended()
		t.undos = nil // nobody is there to be thawed or resumed
		return ctx.Err()
	case err != nil:
		return err
	case derr != nil:
		return derr
	case d.State != StatePaused || d.PauseReason != PauseUser:
		return fmt.Errorf("%w: after its suspend the domain is %s (%s)", ErrRefused, d.State, d.PauseReason)
	}
	return nil
}

// letGoOn undoes the suspend of a guest that ran.
func (t *task) letGoOn(ctx context.Context) error {
	err := t.s.e.Hypervisor.Resume(ctx, t.ip.UUID)
	if !t.suspended.IsZero() {
		t.report.PauseSeconds = time.Since(t.suspended).Seconds()
		t.report.DowntimeSeconds = t.report.PauseSeconds
	}
	if err == nil {
		return nil
	}
	if d, derr := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID); errors.Is(derr, ErrNoDomain) || derr == nil && d.State == StateShutOff {
		return nil // it has ended by itself: there is nothing to let go on
	}
	return err
}

// snapshot notes how much the guest has written.
func (t *task) snapshot(ctx context.Context) (Snapshot, error) {
	c, err := t.s.e.Hypervisor.Counters(ctx, t.ip.UUID)
	return Snapshot{Process: t.ip.Process, Taken: time.Now().UTC(), Counters: c}, err
}

// unchanged is true when the guest has provably written nothing between two
// snapshots.
func (s Snapshot) unchanged(later Snapshot) bool {
	return s.Process == later.Process && maps.EqualFunc(s.Counters, later.Counters, func(a, b BlockCounters) bool {
		return a.WriteRequests == b.WriteRequests && a.WriteBytes == b.WriteBytes
	})
}

// stillQuiet makes sure, right before the destroy, that the copies are of what
// the guest has now: nobody has let it go on in between.
func (t *task) stillQuiet(ctx context.Context) error {
	d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
	if errors.Is(err, ErrNoDomain) || err == nil && d.State == StateShutOff {
		// What it wrote last is in the held inodes, and may not be in the copies.
		t.ended()
		t.undos = slices.DeleteFunc(t.undos, func(u undo) bool { return u.step != stepCleanup })
		return t.stageAgain(ctx)
	}
	if err != nil {
		return err
	}
	if d.State != StatePaused || d.PauseReason != PauseUser || !t.sameProcess() {
		return fmt.Errorf("%w: somebody let the domain go on while it was copied (it is %s)", ErrUnproven, d.State)
	}
	now, err := t.snapshot(ctx)
	if err != nil {
		return err
	}
	if !t.before.unchanged(now) {
		return fmt.Errorf("%w: the guest has written since it was suspended: somebody let it go on in between", ErrUnproven)
	}
	return nil
}

// saveXML keeps the domain's definition, which a start may need when libvirt has
// forgotten the domain.
func (t *task) saveXML(ctx context.Context) error {
	path := t.s.state.xml(t.s.plan.Run, t.ip.UUID)
	xml, err := t.s.e.Hypervisor.XML(ctx, t.ip.UUID)
	if errors.Is(err, ErrNoDomain) {
		if t.s.plan.Command == CommandRestore {
			xml, err = storedXML(t.s.plan.Options.BackupDir, t.ip.UUID)
		} else if xml, err = guardDirIn(t.s.e.Settings.StateDir).definition(t.ip.UUID); xml == "" && err == nil {
			return nil
		}
	}
	if err == nil {
		err = writeFile(path, []byte(xml))
	}
	if err != nil {
		return fmt.Errorf("save the domain's definition: %w", err)
	}
	return nil
}

func (t *task) savedXML() (string, error) {
	data, err := os.ReadFile(t.s.state.xml(t.s.plan.Run, t.ip.UUID))
	if err != nil {
		return "", fmt.Errorf("libvirt has forgotten the domain, and its definition was not saved: %w", err)
	}
	return string(data), nil
}
