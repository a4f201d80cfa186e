package recover

import (
	"context"
	"errors"
	"time"
)

// errGuestEnded: the guest has no QEMU any more. What it wrote last is in the held
// inodes, and may not be in the copies.
var errGuestEnded = errors.New("the guest has ended by itself")

// guest is the domain of one task.
type guest struct {
	t *task
	// storedDefinition returns the definition of a domain that libvirt does not
	// know; empty when nobody has it.
	storedDefinition func() (string, error)

	before Snapshot  // its writing, right after the suspend
	since  time.Time // when its suspend began; zero when it was not suspended
}

// newGuest returns the domain of a task. storedDefinition returns the definition
// of a domain that libvirt does not know; empty when nobody has it.
func newGuest(t *task, storedDefinition func() (string, error)) *guest {
	return &guest{t: t, storedDefinition: storedDefinition}
}

// domain returns the domain as it is now. ErrNoDomain when libvirt does not know it.
func (g *guest) domain(ctx context.Context) (Domain, error) {
	return g.t.run.hypervisor.Domain(ctx, g.t.plan.UUID)
}

// look scans the domain.
func (g *guest) look(ctx context.Context) (Instance, error) {
	d, err := g.domain(ctx)
	if err != nil {
		return Instance{}, err
	}
	return g.t.run.scan(ctx, d)
}

// isOff is true when err and d, which domain returned, say that there is no QEMU.
func isOff(d Domain, err error) bool {
	return errors.Is(err, ErrNoDomain) || err == nil && d.State == StateShutOff
}

// sameProcess is true while the QEMU that the plan was made for lives.
func (g *guest) sameProcess() bool {
	now, err := identify(procDir, g.t.plan.Process.PID)
	return err == nil && now == g.t.plan.Process
}

// mayBeHandled returns ErrRefused unless d is the scanned QEMU's domain, in a state
// in which it may be suspended.
func (g *guest) mayBeHandled(d Domain) error {
	if reason := handsOff(d); reason != "" {
		return refusedBecause(reason)
	}
	if !g.sameProcess() || d.PID != g.t.plan.Process.PID {
		return refusedBecause("its QEMU is another process than the one that was scanned: run the command again")
	}
	return nil
}

// gone is true when the domain's QEMU has ended. One that was just told to may
// take a moment.
func (g *guest) gone(ctx context.Context) bool {
	for range 20 {
		d, err := g.domain(ctx)
		if isOff(d, err) {
			return true
		}
		if err == nil && d.State != StateOther {
			return false
		}
		pause(ctx, 100*time.Millisecond)
	}
	return false
}

// endedMeanwhile is true when the QEMU that the plan was made for has ended by
// itself: its copies may be all that is left, and nothing of it is undone.
func (g *guest) endedMeanwhile() bool {
	return g.t.run.plan.Command != CommandBackup && g.t.plan.Process.PID != 0 && !g.sameProcess()
}

// runsHere is true when the domain is active on this host.
func (g *guest) runsHere(ctx context.Context) bool {
	if g.t.run.plan.Options.Reboot.Remote {
		return false
	}
	d, err := g.domain(ctx)
	return err == nil && d.State != StateShutOff
}

// snapshotBefore is the guest's writing right after its suspend; its zero value
// when it was not suspended.
func (g *guest) snapshotBefore() Snapshot { return g.before }

// endPause reports how long the guest has been suspended.
func (g *guest) endPause() {
	if !g.since.IsZero() {
		g.t.setPause(time.Since(g.since))
	}
}

// endDowntime reports how long the guest has not run.
func (g *guest) endDowntime() {
	if !g.since.IsZero() {
		g.t.setDowntime(time.Since(g.since))
	}
}
