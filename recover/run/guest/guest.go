package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// ErrEnded: the guest has no QEMU any more. Its last writes are in the held
// inodes, and may not be in the copies.
var ErrEnded = errors.New("the guest has ended by itself")

// ErrCrashed: the guest's QEMU has ended by a fault of its own, or was killed.
var ErrCrashed = errors.New("its QEMU crashed")

// endLimit is how long libvirt may take to notice that a QEMU has ended.
const endLimit = 10 * time.Second

// Guest is the domain of one task.
type Guest struct {
	t *task.Task
	// storedDefinition returns the definition of a domain that libvirt does not know; ""
	// when nobody has one.
	storedDefinition func() (string, error)

	before recover.Snapshot // its writing, right after the suspend
	since  time.Time        // when its suspend began; zero when it was not suspended

	crashed bool // its QEMU, and the report says so
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

// AwaitEnd waits until the QEMU that the plan was made for has no file open any more: only
// then nobody writes what it had. recover.ErrUnproven when it has after half a minute.
func (g *Guest) AwaitEnd(ctx context.Context) error {
	pid := g.t.Plan.Process.PID
	for end := time.Now().Add(30 * time.Second); g.SameProcess(); recover.Pause(ctx, 20*time.Millisecond) {
		// A process that is dead and that its parent has not asked after has none either.
		if open, _ := os.ReadDir(filepath.Join(procfs.Dir, strconv.Itoa(pid), "fd")); len(open) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: libvirt says that it is off, and its QEMU (process %d) is still there", recover.ErrUnproven, pid)
		}
	}
	return nil
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

// lookTime bounds a last look at a domain.
const lookTime = 10 * time.Second

// HowItIs looks at the domain, also after the end of ctx, and says how its guest is: as it
// was found only if it was seen to be in that state, in the process that the plan was made
// for.
func (g *Guest) HowItIs(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
	defer cancel()
	found := g.t.Plan.Found
	d, err := g.Domain(ctx)
	off := isOff(d, err)
	switch {
	case found == recover.StateShutOff && off, found != recover.StateShutOff && err == nil && d.State == found && g.SameProcess():
		return fmt.Sprintf("its guest is as it was found (%s)", found)
	case off:
		return fmt.Sprintf("its guest was found %s, and is off now", found)
	case err != nil:
		return fmt.Sprintf("its guest was found %s; how it is now can't be seen (%v)", found, err)
	case d.State == found:
		return fmt.Sprintf("its guest was found %s; it is that again, in another QEMU", found)
	}
	return fmt.Sprintf("its guest was found %s, and is %s now", found, d.State)
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

// StillRuns makes sure that the guest is still in the QEMU that it was in, and that this one
// answers. ErrCrashed when it has crashed, ErrEnded when it has ended in another way:
// somebody, or the guest itself, wanted that.
func (g *Guest) StillRuns(ctx context.Context) error {
	if _, err := g.t.Run.Hypervisor.Counters(ctx, g.t.Plan.UUID); err == nil && g.SameProcess() {
		return nil
	}
	for end := time.Now().Add(endLimit); ; recover.Pause(ctx, 50*time.Millisecond) {
		d, err := g.Domain(ctx)
		switch {
		case isOff(d, err) && d.Crashed:
			return errors.Join(fmt.Errorf("%w: see %s", ErrCrashed, g.log()), g.noteCrash(ctx))
		case isOff(d, err):
			return ErrEnded
		case err != nil:
			return err
		case d.PID != g.t.Plan.Process.PID:
			return fmt.Errorf("%w: and somebody has started it again", ErrEnded)
		case !g.SameProcess() && time.Now().Before(end) && ctx.Err() == nil:
			continue // libvirt has not noticed yet
		case !g.SameProcess():
			return fmt.Errorf("its QEMU has ended, and libvirt still shows it as %s: see %s", d.State, g.log())
		}
		// Its QEMU lives. It is libvirt that does not answer for it, or a job is in the way.
		return nil
	}
}

// noteCrash tells of the crash, in the journal and the report.
func (g *Guest) noteCrash(ctx context.Context) error {
	if g.crashed {
		return nil
	}
	g.TellCrash()
	return g.t.Step(ctx, journal.StepCrash, "", func() error { return nil })
}

// HasCrashed is true when the guest's QEMU was seen to have crashed.
func (g *Guest) HasCrashed() bool { return g.crashed }

// TellCrash notes in the report that the guest's QEMU has crashed.
func (g *Guest) TellCrash() {
	g.crashed = true
	g.t.Notef("%v during the run: see %s", ErrCrashed, g.log())
}

// log is where QEMU has said its last words (libvirt's src/qemu/qemu_domain.c,
// qemuDomainLogContextNew).
func (g *Guest) log() string { return "/var/log/libvirt/qemu/" + g.t.Plan.Domain + ".log" }
