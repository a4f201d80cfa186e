package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// rescue brings an instance's files back: those that the guest does not write
// while it runs; for the others it is suspended, copied, proven, destroyed,
// published and started.
func (t *task) rescue(ctx context.Context) error {
	defer t.closeStaged()
	if err := t.room(); err != nil {
		return err
	}
	if err := t.putBack(ctx); err != nil {
		return err
	}
	if t.ip.Action == ActionPutBack {
		return t.finishRunning(ctx)
	}
	if err := t.saveXML(ctx); err != nil {
		return err
	}
	t.onFailure(stepCleanup, t.removeStaged) // noted first, undone last: the guest goes on before
	if err := t.copyAhead(ctx); err != nil {
		return err
	}
	if err := t.quiesce(ctx); err != nil {
		return err
	}
	if err := t.stageWritten(ctx); err != nil {
		return err
	}
	if err := t.keepBackup(ctx); err != nil {
		return err
	}
	if !t.off {
		if err := t.stillQuiet(ctx); err != nil {
			return err
		}
	}
	if err := t.roomForAll(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.commit(ctx)
}

// room looks once more, before this instance's pause, whether its copies fit:
// others may have filled the file system since the plan, and an instance that
// failed has not let its old inodes go.
func (t *task) room() error {
	if t.prior != nil {
		return nil // what is staged already needs no room again
	}
	p := &planner{settings: t.s.e.Settings, root: t.s.root, options: t.s.plan.Options}
	one := Plan{Command: t.s.plan.Command, Options: t.s.plan.Options, Instances: []InstancePlan{t.ip}}
	if err := p.space(&one); err != nil {
		return err
	}
	if refused := one.Instances[0]; refused.Action == ActionRefuse {
		return refusal(refused.Refusal)
	}
	return nil
}

// putBack restores the files that the guest does not write, each once per run.
func (t *task) putBack(ctx context.Context) error {
	for _, f := range t.ip.Files {
		if f.Writable || f.Role == RoleConsoleLog || f.Role == RoleDiskInfo {
			continue
		}
		if err := t.putBackOne(ctx, f); err != nil {
			return err
		}
	}
	if t.ip.Action != ActionPutBack && t.ip.Action != ActionLive {
		return nil
	}
	for _, f := range t.ip.Files {
		if f.Role != RoleConsoleLog && f.Role != RoleDiskInfo {
			continue
		}
		if err := t.putBackOne(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// putBackOne restores one file; instances that share it share the work.
func (t *task) putBackOne(ctx context.Context, f FilePlan) error {
	return t.s.shared.once(f.Path+" "+f.Key(), func() error {
		staged, err := t.stage(ctx, f)
		if err != nil {
			return errors.Join(err, t.unstage(ctx, staged))
		}
		err = t.publish(ctx, staged)
		if err != nil {
			err = errors.Join(err, t.unstage(ctx, staged))
		} else if f.Role == RoleConsoleLog {
			t.logged = staged.inode
		}
		return err
	})
}

// finishRunning ends the rescue of an instance that never stopped.
func (t *task) finishRunning(ctx context.Context) error {
	if err := t.keepBackup(ctx); err != nil {
		return err
	}
	err := t.step(ctx, stepConfirm, "", func() error {
		d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
		if err != nil {
			return err
		}
		i, err := t.s.e.scanInstance(ctx, d)
		if err != nil {
			return err
		}
		if i.Verdict != VerdictIntact {
			return fmt.Errorf("%w: after its files were put back it is %s: %v", ErrUnproven, i.Verdict, i.Reasons)
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.notef("the guest ran on; its QEMU reads the old, identical files until its next start")
	return t.unpin(ctx)
}

// stageWritten copies and proves everything that the guest writes.
func (t *task) stageWritten(ctx context.Context) error {
	for _, f := range t.ip.Files {
		if !f.Writable && f.Role != RoleConsoleLog && f.Role != RoleDiskInfo {
			continue
		}
		staged, err := t.stage(ctx, f)
		if staged != nil {
			t.staged = append(t.staged, staged)
		}
		if err != nil {
			return err
		}
		if err := t.fresherThan(f, staged); err != nil {
			return err
		}
	}
	return nil
}

// stageAgain proves every copy once more, and makes those anew that are not what
// the held inodes have now: the guest was let go on, or ended, by somebody else.
func (t *task) stageAgain(ctx context.Context) error {
	for n, staged := range t.staged {
		err := t.sameContent(ctx, staged)
		if errors.Is(err, ErrUnproven) && !staged.kept {
			if err = t.unstage(ctx, staged); err == nil {
				var again *stagedFile
				if again, err = t.stage(ctx, staged.plan); again != nil {
					t.staged[n] = again
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// roomForAll looks, right before the destroy, whether every copy can be given
// its name: what can be known then must not be found out after it.
func (t *task) roomForAll() error {
	for _, staged := range t.staged {
		if staged.kept {
			continue
		}
		path := staged.plan.Path
		st, err := t.s.root.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s can't be published safely: %w", path, err)
		}
		if !t.s.plan.Options.ReplaceExisting {
			return fmt.Errorf("%w: %s (inode %d) has appeared during the run: look at what it is, then either move it away or use --replace-existing", ErrConflict, path, st.Ino)
		}
		dir, err := t.s.root.OpenDir(filepath.Dir(path))
		if err != nil {
			return err
		}
		err = t.mayMoveAside(dir, filepath.Base(path))
		dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// fresherThan checks a copy against what QEMU says it has written: an image that
// ends before the highest offset its QEMU wrote was read from a stale cache.
func (t *task) fresherThan(f FilePlan, staged *stagedFile) error {
	c, ok := t.before.Counters[f.Target]
	if !ok || f.Role != RoleDisk || f.Stored != "" || staged.size >= int64(c.HighestOffset) {
		return nil
	}
	return fmt.Errorf("%w: QEMU has written %s up to byte %d, and what was read of it ends at byte %d: the file system served old content", ErrUnproven, f.Path, c.HighestOffset, staged.size)
}

// commit is what can't be undone, and is therefore not interrupted: from the
// destroy on, until the guest runs again on proven files.
func (t *task) commit(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	t.committed = true
	if !t.off {
		if err := t.destroy(ctx); err != nil {
			return err
		}
	}
	for _, staged := range t.staged {
		if err := t.publish(ctx, staged); err != nil {
			return err
		}
	}
	if err := t.startAgain(ctx); err != nil {
		return err
	}
	if t.prior != nil {
		if err := t.removePrior(ctx); err != nil {
			return err
		}
	}
	for _, staged := range t.begun { // another file was kept instead
		if err := t.unstage(ctx, staged); err != nil {
			return err
		}
	}
	return t.unpin(ctx)
}

// destroy ends the domain's QEMU. When that fails and QEMU lives on, the guest is
// let go on, and only then the copies are given up: it may end all the same, a
// moment later, and then they are what its files are made of.
func (t *task) destroy(ctx context.Context) error {
	err := t.step(ctx, stepDestroy, "", func() error { return t.s.e.Hypervisor.Destroy(ctx, t.ip.UUID) })
	if !t.suspended.IsZero() {
		t.report.PauseSeconds = time.Since(t.suspended).Seconds()
	}
	if err == nil || t.gone(ctx) {
		return nil
	}
	cleanup := slices.DeleteFunc(slices.Clone(t.undos), func(u undo) bool { return u.step != stepCleanup })
	t.undos = slices.DeleteFunc(t.undos, func(u undo) bool { return u.step == stepCleanup })
	rerr := t.rollback(ctx)
	if t.gone(ctx) {
		// It ended after all, and may have written before.
		t.off = true
		return t.stageAgain(ctx)
	}
	if rerr == nil {
		t.committed, t.undos = false, cleanup
	}
	return errors.Join(err, rerr)
}

// gone is true when the domain's QEMU has ended. One that was just told to may
// take a moment.
func (t *task) gone(ctx context.Context) bool {
	for range 20 {
		d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
		if errors.Is(err, ErrNoDomain) || err == nil && d.State == StateShutOff {
			return true
		}
		if err == nil && d.State != StateOther {
			return false
		}
		pause(ctx, 100*time.Millisecond)
	}
	return false
}

// sameProcess is true while the QEMU that the plan was made for lives.
func (t *task) sameProcess() bool {
	now, err := identify(procDir, t.ip.Process.PID)
	return err == nil && now == t.ip.Process
}

// startAgain leaves the domain in the state it was found in.
func (t *task) startAgain(ctx context.Context) error {
	switch {
	case t.stayOff && !t.endedByNova(ctx):
		t.notef("the guest powered itself off during the run; its files are back, and it stays off")
		return nil
	case t.ip.Found != StateRunning && t.ip.Found != StatePaused:
		return nil
	case t.s.plan.Options.NoReboot:
		t.notef("its files are back; the domain is off, because --no-reboot was given%s", t.laterReboot())
		return nil
	}
	if t.s.cloud != nil {
		return t.rebootInNova(ctx)
	}
	hv := t.s.e.Hypervisor
	err := t.step(ctx, stepStart, "", func() error {
		err := hv.Start(ctx, t.ip.UUID, t.ip.Found == StatePaused)
		if !errors.Is(err, ErrNoDomain) {
			return err
		}
		// Somebody undefined it meanwhile; its definition was saved before.
		xml, err := t.savedXML()
		if err == nil {
			err = hv.Define(ctx, xml)
		}
		if err == nil {
			err = hv.Start(ctx, t.ip.UUID, t.ip.Found == StatePaused)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("its files are back and proven, but it does not start: %w", err)
	}
	if !t.suspended.IsZero() {
		t.report.DowntimeSeconds = time.Since(t.suspended).Seconds()
	}
	return t.confirm(ctx)
}

// endedByNova is true when the guest did not power itself off: an admin, whom no
// lock stops, had Nova hard reboot it while its files were missing, which ended in
// ERROR (nova/virt/libvirt/driver.py, _hard_reboot).
func (t *task) endedByNova(ctx context.Context) bool {
	if t.s.cloud == nil {
		return false
	}
	server, err := t.s.cloud.Server(ctx, t.ip.UUID)
	return err == nil && server.VMState == VMError
}

// laterReboot says how an instance that is left off gets going.
func (t *task) laterReboot() string {
	if t.s.cloud == nil {
		return ""
	}
	return ": Nova will show it as SHUTOFF in some seconds; bring it back with os-rescue reboot --instance " + t.ip.UUID + " --state SHUTOFF"
}

// confirm waits until a new QEMU holds exactly the published files.
func (t *task) confirm(ctx context.Context) error {
	return t.step(ctx, stepConfirm, "", func() error {
		deadline := time.Now().Add(t.s.e.Settings.StartTimeout)
		for {
			i, err := t.look(ctx)
			if err != nil {
				return err
			}
			if i.PID != 0 && i.process != t.ip.Process && i.Verdict == VerdictIntact && t.holdsPublished(i) {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%w: %s after its start the domain is %s and its files %s: %v", ErrUnproven, t.s.e.Settings.StartTimeout, i.State, i.Verdict, i.Reasons)
			}
			pause(ctx, 50*time.Millisecond)
		}
		return t.watch(ctx)
	})
}

// holdsPublished is true when the inodes that a scan found are the published ones.
func (t *task) holdsPublished(i Instance) bool {
	for _, staged := range t.staged {
		for _, f := range i.Files {
			if f.Path == staged.plan.Path && f.Role != RoleConsoleLog && (inode{f.Device, f.Inode}) != staged.inode {
				return false
			}
		}
	}
	return true
}

func (t *task) look(ctx context.Context) (Instance, error) {
	d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
	if err != nil {
		return Instance{}, err
	}
	return t.s.e.scanInstance(ctx, d)
}

// watch keeps an eye on a domain that libvirt started behind the back of a
// running nova-compute: about 15 s after a domain ended, Nova stops the instance
// that it believes to be off (nova/compute/manager.py, handle_lifecycle_event and
// _sync_instance_power_state). Its files are back, so that loses nothing; it is
// started again, and watched for longer, because Nova asks the guest to shut down
// for a minute before it ends it. When it is stopped once more, it stays so: Nova
// has it as stopped by then, and ends whatever libvirt starts.
func (t *task) watch(ctx context.Context) error {
	pids, err := processesNamed(procDir, "nova-compute")
	if err != nil || len(pids) == 0 {
		return err
	}
	again := false
	for end := time.Now().Add(t.s.e.Settings.Watch); time.Now().Before(end); pause(ctx, time.Second) {
		d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
		if err != nil {
			return err
		}
		if d.State != StateShutOff {
			continue
		}
		if again {
			t.fought = true
			return nil
		}
		again = true
		end = time.Now().Add(2 * t.s.e.Settings.Watch)
		zerolog.Ctx(ctx).Info().Str("domain", t.ip.Domain).Msg("it was stopped again, by Nova as it seems: starting it once more")
		t.notef("something stopped it after its start, Nova as it seems; it was started again: tell Nova with a hard reboot")
		if err := t.s.e.Hypervisor.Start(ctx, t.ip.UUID, t.ip.Found == StatePaused); err != nil {
			return err
		}
	}
	return nil
}
