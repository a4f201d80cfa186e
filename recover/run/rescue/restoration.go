package rescue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/run/backup"
	"github.com/os-rescue/os-rescue/recover/run/guest"
	"github.com/os-rescue/os-rescue/recover/run/hardreboot"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/run/task"
	"github.com/os-rescue/os-rescue/recover/startable"
)

// Restoration brings an instance's files back from what is held of them, or from a
// backup.
type Restoration struct {
	t      *task.Task
	guest  *guest.Guest
	files  *staging.Set
	backup *backup.Backup
	reboot *hardreboot.Reboot

	undefined error // why libvirt can't start it any more, though its files are back
}

// New returns the restoration of a task's instance. files are its copies. b is kept, if the
// run keeps backups, before the guest's QEMU is ended; r brings it back where Nova is asked.
func New(t *task.Task, g *guest.Guest, files *staging.Set, b *backup.Backup, r *hardreboot.Reboot) *Restoration {
	return &Restoration{t: t, guest: g, files: files, backup: b, reboot: r}
}

// CarryOut puts back what the guest only reads while it runs on. For what it writes it is
// suspended; its files are copied and proven, its QEMU is destroyed, the copies are
// published, and it is started. After an error the task's state says whether the guest can
// be left as it was found.
//
// Errors of package recover: ErrRefused (no room, or a domain that is not to be touched),
// ErrConflict (something stands at a path), ErrUnproven, ErrCorrupt, ErrNoSpace, ErrOlder,
// and those of the hypervisor and, unless the run is offline, of Cloud.
func (r *Restoration) CarryOut(ctx context.Context) error {
	defer r.files.Close()
	if err := staging.RoomForAll(r.t); err != nil {
		return err
	}
	if err := r.files.PutBack(ctx); err != nil {
		return err
	}
	if r.t.Plan.Action.RunsOn() {
		staging.MendDirectories(ctx, r.t)
		return r.finishRunning(ctx)
	}
	if err := r.guest.SaveDefinition(ctx); err != nil {
		return err
	}
	r.t.OnFailure(journal.StepCleanup, r.files.Remove) // noted first, undone last: the guest goes on before
	if err := r.copyAhead(ctx); err != nil {
		return err
	}
	if err := r.guest.Quiesce(ctx); err != nil {
		return err
	}
	if err := staging.EqualsHeld(ctx, r.files); err != nil {
		return err
	}
	if err := r.files.StageWritten(ctx, r.isFresh); err != nil {
		return err
	}
	if err := r.backup.Keep(ctx, r.files.StageAgain); err != nil {
		return err
	}
	if err := r.comesBack(ctx); err != nil {
		return err
	}
	if err := r.stillQuiet(ctx); err != nil {
		return err
	}
	if err := r.files.NamesAreFree(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := task.NotDeleted(ctx, r.t); err != nil {
		return err
	}
	if err := r.t.Run.Pins.Ensure(ctx); err != nil {
		return err
	}
	return r.commit(ctx)
}

// finishRunning ends the rescue of an instance that never stopped.
func (r *Restoration) finishRunning(ctx context.Context) error {
	if err := r.backup.Keep(ctx, r.files.StageAgain); err != nil {
		return err
	}
	err := r.t.Step(ctx, journal.StepConfirm, "", func() error {
		i, err := r.guest.Look(ctx)
		if err != nil {
			return err
		}
		if !i.IsWhole() {
			return fmt.Errorf("%w: after its files were put back it is %s: %v", recover.ErrUnproven, i.Verdict, i.Reasons)
		}
		return nil
	})
	if err != nil {
		return err
	}
	copied := func(f recover.FilePlan) bool { return f.Role != recover.RoleDiskInfo }
	if r.t.Plan.Found != recover.StateShutOff && slices.ContainsFunc(r.t.Plan.Files, copied) {
		r.t.Notef("the guest ran on; its QEMU reads the old, identical files until its next start")
	}
	return staging.Unpin(ctx, r.t)
}

// copyAhead copies the guest's disks before its suspend. It is no use for a guest
// that stands still.
func (r *Restoration) copyAhead(ctx context.Context) error {
	if r.t.Run.Plan.Command != recover.CommandRescue || r.t.History != nil || r.t.Plan.Found != recover.StateRunning {
		return nil
	}
	d, err := r.guest.Domain(ctx)
	if errors.Is(err, recover.ErrNoDomain) || err == nil && d.State != recover.StateRunning {
		return nil // it has ended, or was paused, since the plan
	}
	if err != nil {
		return err
	}
	return r.files.CopyAhead(ctx)
}

// isFresh checks a copy of that size against what QEMU says it has written: an
// image that ends before the highest offset its QEMU wrote was read from a stale
// cache.
func (r *Restoration) isFresh(f recover.FilePlan, size int64) error {
	c, ok := r.guest.SnapshotBefore().Counters[f.Target]
	if !ok || f.Role != recover.RoleDisk || f.Stored != "" || size >= int64(c.HighestOffset) {
		return nil
	}
	return fmt.Errorf("%w: QEMU has written %s up to byte %d, and what was read of it ends at byte %d: the file system served old content",
		recover.ErrUnproven, f.Path, c.HighestOffset, size)
}

// stillQuiet makes sure that the copies are of what the guest has now. When it has
// ended they are proven again.
func (r *Restoration) stillQuiet(ctx context.Context) error {
	if r.t.State().HasEnded() {
		return nil
	}
	err := r.guest.StillQuiet(ctx)
	if errors.Is(err, guest.ErrEnded) {
		if err := staging.EqualsHeld(ctx, r.files); err != nil {
			return err
		}
		return r.files.StageAgain(ctx)
	}
	return err
}

// comesBack makes sure, before the destroy, that the guest would be started on the files
// that are restored, and can be started at all: somebody may have redefined it since the
// plan was made, or virtlogd may have died.
// recover.ErrRefused when it would not. A guest that has ended is stillQuiet's.
func (r *Restoration) comesBack(ctx context.Context) error {
	if r.t.State().HasEnded() {
		return nil
	}
	i, err := r.guest.Look(ctx)
	if errors.Is(err, recover.ErrNoDomain) || err == nil && i.PID == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	by := recover.StarterLibvirt
	if r.t.Run.Cloud != nil {
		by = recover.StarterNova
	}
	if why := i.StartsElsewhere(by); why != "" {
		return fmt.Errorf("%w: %s; first: %s", recover.ErrRefused, why, i.CureOfNextStart())
	}
	if r.t.Run.Plan.Options.NoReboot {
		return nil
	}
	why, err := startable.WhyNot(ctx, r.t.Run.Hypervisor, r.t.Run.Settings, r.t.Plan.UUID, by)
	if err == nil && why != "" {
		err = fmt.Errorf("%w: it would not start again: %s", recover.ErrRefused, why)
	}
	return err
}

// commit is what can't be undone, and is therefore not interrupted: from the
// destroy on, until the guest runs again on proven files.
func (r *Restoration) commit(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	runs := !r.t.State().HasEnded()
	if err := r.t.Enter(ctx, task.EventCommit); err != nil {
		return err
	}
	if runs {
		if err := r.destroy(ctx); err != nil {
			return err
		}
	}
	if err := r.guest.AwaitEnd(ctx); err != nil {
		return err
	}
	staging.MendDirectories(ctx, r.t)
	if err := staging.FollowHeld(ctx, r.files); err != nil {
		return err
	}
	if err := staging.LookAgain(ctx, r.files); err != nil {
		return err
	}
	// Nobody would ever remove what is published of an instance that Nova has deleted by now.
	if err := task.NotDeleted(ctx, r.t); err != nil {
		return &task.Final{Err: errors.Join(err, r.files.Remove(ctx))}
	}
	if err := r.files.Publish(ctx); err != nil {
		return err
	}
	if err := r.startAgain(ctx); err != nil {
		return err
	}
	if r.t.History != nil {
		if err := r.files.RemoveInherited(ctx); err != nil {
			return err
		}
	}
	if err := r.files.RemoveBegun(ctx); err != nil {
		return err
	}
	if err := staging.Unpin(ctx, r.t); err != nil {
		return err
	}
	if r.undefined != nil {
		return &task.Final{Err: fmt.Errorf("its files are back and proven, but %w", r.undefined),
			Next: "Have Nova define and start it: os-rescue reboot --instance " + r.t.Plan.UUID + " --state ERROR --state SHUTOFF"}
	}
	return nil
}

// destroy ends the domain's QEMU. When that fails and QEMU lives on, the guest is
// let go on, and only then the copies are given up: it may end all the same, a
// moment later, and then they are what its files are made of.
func (r *Restoration) destroy(ctx context.Context) error {
	t := r.t
	err := t.Step(ctx, journal.StepDestroy, "", func() error { return t.Run.Hypervisor.Destroy(ctx, t.Plan.UUID) })
	r.guest.EndPause()
	if err == nil || r.guest.Gone(ctx) {
		return t.Enter(ctx, task.EventDestroy)
	}
	cleanup := t.TakeUndos(journal.StepCleanup)
	rerr := t.Rollback(ctx)
	if r.guest.Gone(ctx) {
		return t.Enter(ctx, task.EventDestroy) // it ended after all
	}
	if rerr == nil {
		t.ReturnUndos(cleanup)
		rerr = t.Enter(ctx, task.EventRevert)
	}
	return errors.Join(err, rerr)
}

// StartAgain starts a guest whose QEMU crashed after it was moved onto its new disks, in the
// state that it was found in.
func (r *Restoration) StartAgain(ctx context.Context) error {
	if err := r.startAgain(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return r.undefined
}

// startAgain leaves the domain in the state it was found in.
func (r *Restoration) startAgain(ctx context.Context) error {
	t, hv := r.t, r.t.Run.Hypervisor
	switch {
	case t.State() == task.StateStaysOff && (t.Plan.NextStart != "" || !r.endedByNova(ctx)):
		t.Notef("the guest powered itself off during the run; its files are back, and it stays off")
		return nil
	case t.Plan.Found != recover.StateRunning && t.Plan.Found != recover.StatePaused:
		return nil
	case t.Plan.NextStart != "" && r.guest.HasCrashed():
		t.Notef("its files are back, and it is off: a start may give it other ones (%s)", t.Plan.NextStart)
		return nil
	case t.Run.Plan.Options.NoReboot:
		t.Notef("its files are back; the domain is off, because --no-reboot was given%s", r.laterReboot())
		return nil
	}
	if t.Run.Cloud != nil {
		return r.reboot.IntoService(ctx)
	}
	err := t.Step(ctx, journal.StepStart, "", func() error {
		err := hv.Start(ctx, t.Plan.UUID, t.Plan.Found == recover.StatePaused)
		if !errors.Is(err, recover.ErrNoDomain) {
			return err
		}
		// Somebody undefined it meanwhile; its definition was saved before.
		xml, err := r.guest.SavedDefinition()
		if errors.Is(err, fs.ErrNotExist) {
			r.undefined = err
		}
		if err == nil {
			err = hv.Define(ctx, xml)
		}
		if err == nil {
			err = hv.Start(ctx, t.Plan.UUID, t.Plan.Found == recover.StatePaused)
		}
		return err
	})
	if err != nil && r.undefined == nil {
		return fmt.Errorf("its files are back and proven, but it does not start: %w", err)
	}
	if r.undefined != nil {
		return nil //nolint:nilerr // commit says so when all else is done
	}
	r.guest.EndDowntime()
	return r.confirm(ctx)
}

// endedByNova is true when the guest did not power itself off: an admin, whom no
// lock stops, had Nova hard reboot it while its files were missing, which ended in
// ERROR (nova/virt/libvirt/driver.py, _hard_reboot).
func (r *Restoration) endedByNova(ctx context.Context) bool {
	if r.t.Run.Cloud == nil {
		return false
	}
	server, err := r.t.Run.Cloud.Server(ctx, r.t.Plan.UUID)
	return err == nil && server.VMState == recover.VMError
}

// laterReboot says how an instance that is left off gets going.
func (r *Restoration) laterReboot() string {
	if r.t.Run.Cloud == nil {
		return ""
	}
	return ": Nova will show it as SHUTOFF in some seconds; " +
		"bring it back with os-rescue reboot --instance " + r.t.Plan.UUID + " --state SHUTOFF"
}

// confirm waits until a new QEMU holds exactly the published files.
func (r *Restoration) confirm(ctx context.Context) error {
	limit := r.t.Run.Settings.StartTimeout
	return r.t.Step(ctx, journal.StepConfirm, "", func() error {
		deadline := time.Now().Add(limit)
		for {
			i, err := r.guest.Look(ctx)
			if err != nil {
				return err
			}
			var open error
			if i.PID != 0 && i.Process != r.t.Plan.Process {
				open = staging.IsOpen(ctx, r.files, i)
				if errors.Is(open, staging.ErrElsewhere) {
					return open
				}
				if open == nil && i.IsWhole() {
					staging.Remember(ctx, r.files)
					break
				}
			}
			if time.Now().After(deadline) {
				err := fmt.Errorf("%w: %s after its start the domain is %s and its files %s: %v",
					recover.ErrUnproven, limit, i.State, i.Verdict, i.Reasons)
				return errors.Join(err, open)
			}
			recover.Pause(ctx, 50*time.Millisecond)
		}
		return r.watch(ctx)
	})
}

// watch keeps an eye on a domain that libvirt started behind the back of a
// running nova-compute: about 15 s after a domain ended, Nova stops the instance
// that it believes to be off (nova/compute/manager.py, handle_lifecycle_event and
// _sync_instance_power_state). Its files are back, so that loses nothing; it is
// started again, and watched for longer, because Nova asks the guest to shut down
// for a minute before it ends it. When it is stopped once more, it stays so: Nova
// has it as stopped by then, and ends whatever libvirt starts.
func (r *Restoration) watch(ctx context.Context) error {
	pids, err := procfs.Named(procfs.Dir, "nova-compute")
	if err != nil || len(pids) == 0 {
		return err
	}
	t := r.t
	again := false
	for end := time.Now().Add(t.Run.Settings.Watch); time.Now().Before(end); recover.Pause(ctx, time.Second) {
		d, err := r.guest.Domain(ctx)
		if err != nil {
			return err
		}
		if d.State != recover.StateShutOff {
			continue
		}
		if again {
			return t.Enter(ctx, task.EventNovaStop)
		}
		again = true
		end = time.Now().Add(2 * t.Run.Settings.Watch)
		zerolog.Ctx(ctx).Info().Str("domain", t.Plan.Domain).Msg("it was stopped after its start, apparently by Nova: starting it once more")
		t.Notef("it was stopped after its start, apparently by Nova, and started again: Nova may show it as stopped until a hard reboot "+
			"(os-rescue reboot --instance %s --state SHUTOFF --state ACTIVE)", t.Plan.UUID)
		if err := t.Run.Hypervisor.Start(ctx, t.Plan.UUID, t.Plan.Found == recover.StatePaused); err != nil {
			return err
		}
	}
	return nil
}
