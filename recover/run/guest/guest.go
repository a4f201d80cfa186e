package guest

import (
	"context"
	"errors"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// ErrEnded: the guest has no QEMU any more. Its last writes are in the held
// inodes, and may not be in the copies.
var ErrEnded = errors.New("the guest has ended by itself")

// Guest is the domain of one task.
type Guest struct {
	t *task.Task
	// storedDefinition returns the definition of a domain that libvirt does not know; ""
	// when nobody has one.
	storedDefinition func() (string, error)

	before recover.Snapshot // its writing, right after the suspend
	since  time.Time        // when its suspend began; zero when it was not suspended
}

// New returns the domain of a task. storedDefinition is asked for the definition of a
// domain that libvirt does not know; it returns "" when nobody has one.
func New(t *task.Task, storedDefinition func() (string, error)) *Guest {
	return &Guest{t: t, storedDefinition: storedDefinition}
}

// Domain returns the domain as it is now. recover.ErrNoDomain when libvirt does not know
// it.
func (g *Guest) Domain(ctx context.Context) (recover.Domain, error) {
	return g.t.Run.Hypervisor.Domain(ctx, g.t.Plan.UUID)
}

// Look scans the domain as it is now. recover.ErrNoDomain when libvirt does not know it,
// and the errors of a scan.
func (g *Guest) Look(ctx context.Context) (recover.Instance, error) {
	d, err := g.Domain(ctx)
	if err != nil {
		return recover.Instance{}, err
	}
	return g.t.Run.Scan(ctx, d)
}

// isOff is true when what Domain returned says that there is no QEMU.
func isOff(d recover.Domain, err error) bool {
	return errors.Is(err, recover.ErrNoDomain) || err == nil && d.State == recover.StateShutOff
}

// SameProcess is true while the QEMU that the plan was made for lives: the process with
// its PID began at the same moment (proc_pid_stat(5), starttime).
func (g *Guest) SameProcess() bool {
	now, err := procfs.Identify(procfs.Dir, g.t.Plan.Process.PID)
	return err == nil && now == g.t.Plan.Process
}

// MayBeHandled returns recover.ErrRefused unless d is the scanned QEMU's domain, in a
// state in which it may be suspended.
func (g *Guest) MayBeHandled(d recover.Domain) error {
	if reason := recover.HandsOff(d, g.t.Plan.Action, g.t.Plan.Paths()); reason != "" {
		return refusedBecause(reason)
	}
	if !g.SameProcess() || d.PID != g.t.Plan.Process.PID {
		return refusedBecause("its QEMU is another process than the one that was scanned: run the command again")
	}
	return nil
}

// Gone is true when the domain's QEMU has ended. One that was just told to end is waited
// for, up to two seconds.
func (g *Guest) Gone(ctx context.Context) bool {
	for range 20 {
		d, err := g.Domain(ctx)
		if isOff(d, err) {
			return true
		}
		if err == nil && d.State != recover.StateOther {
			return false
		}
		recover.Pause(ctx, 100*time.Millisecond)
	}
	return false
}

// EndedMeanwhile is true when the QEMU that the plan was made for has ended without the
// run: the copies may be all that is left of its files, and are not undone.
func (g *Guest) EndedMeanwhile() bool {
	return g.t.Run.Plan.Command != recover.CommandBackup && g.t.Plan.Process.PID != 0 && !g.SameProcess()
}

// RunsHere is true when the domain is active on this host; false also when libvirt does
// not answer.
func (g *Guest) RunsHere(ctx context.Context) bool {
	if g.t.Run.Plan.Options.Reboot.Remote {
		return false
	}
	d, err := g.Domain(ctx)
	return err == nil && d.State != recover.StateShutOff
}

// SnapshotBefore returns how much the guest had written right after its suspend; the
// zero value when it was not suspended.
func (g *Guest) SnapshotBefore() recover.Snapshot { return g.before }

// EndPause reports how long the guest has been suspended; nothing when it was not.
func (g *Guest) EndPause() {
	if !g.since.IsZero() {
		g.t.SetPause(time.Since(g.since))
	}
}

// EndDowntime reports how long the guest has not run; nothing when it was not suspended.
func (g *Guest) EndDowntime() {
	if !g.since.IsZero() {
		g.t.SetDowntime(time.Since(g.since))
	}
}
