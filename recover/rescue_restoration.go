package recover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
)

// restoration brings an instance's files back from what is held of them, or from a
// backup.
type restoration struct {
	t      *task
	guest  *guest
	files  *set
	backup *backup
	reboot *reboot
}

// newRestoration returns the restoration of a task's instance. The backup is kept,
// if the run keeps one, before the guest's QEMU is ended.
func newRestoration(t *task, g *guest, files *set, b *backup, r *reboot) *restoration {
	return &restoration{t: t, guest: g, files: files, backup: b, reboot: r}
}

// carryOut restores those files that the guest does not write while it runs; for
// the others it is suspended, copied, proven, destroyed, published and started.
// After an error the task's state says whether the guest can be left as it was found.
func (r *restoration) carryOut(ctx context.Context) error {
	defer r.files.Close()
	if err := roomForAll(r.t); err != nil {
		return err
	}
	if err := r.files.putBack(ctx); err != nil {
		return err
	}
	if r.t.plan.Action == ActionPutBack {
		return r.finishRunning(ctx)
	}
	if err := r.guest.saveDefinition(ctx); err != nil {
		return err
	}
	r.t.onFailure(stepCleanup, r.files.remove) // noted first, undone last: the guest goes on before
	if err := r.copyAhead(ctx); err != nil {
		return err
	}
	if err := r.guest.quiesce(ctx); err != nil {
		return err
	}
	if err := r.files.stageWritten(ctx, r.isFresh); err != nil {
		return err
	}
	if err := r.backup.keep(ctx, r.files.stageAgain); err != nil {
		return err
	}
	if err := r.stillQuiet(ctx); err != nil {
		return err
	}
	if err := r.files.namesAreFree(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.commit(ctx)
}

// finishRunning ends the rescue of an instance that never stopped.
func (r *restoration) finishRunning(ctx context.Context) error {
	if err := r.backup.keep(ctx, r.files.stageAgain); err != nil {
		return err
	}
	err := r.t.step(ctx, stepConfirm, "", func() error {
		i, err := r.guest.look(ctx)
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
	r.t.notef("the guest ran on; its QEMU reads the old, identical files until its next start")
	return unpin(ctx, r.t)
}

// copyAhead copies the guest's disks before its suspend. It is no use for a guest
// that stands still.
func (r *restoration) copyAhead(ctx context.Context) error {
	if r.t.run.plan.Command != CommandRescue || r.t.history != nil || r.t.plan.Found != StateRunning {
		return nil
	}
	d, err := r.guest.domain(ctx)
	if errors.Is(err, ErrNoDomain) || err == nil && d.State != StateRunning {
		return nil // it has ended, or was paused, since the plan
	}
	if err != nil {
		return err
	}
	return r.files.copyAhead(ctx)
}

// isFresh checks a copy of that size against what QEMU says it has written: an
// image that ends before the highest offset its QEMU wrote was read from a stale
// cache.
func (r *restoration) isFresh(f FilePlan, size int64) error {
	c, ok := r.guest.snapshotBefore().Counters[f.Target]
	if !ok || f.Role != RoleDisk || f.Stored != "" || size >= int64(c.HighestOffset) {
		return nil
	}
	return fmt.Errorf("%w: QEMU has written %s up to byte %d, and what was read of it ends at byte %d: the file system served old content",
		ErrUnproven, f.Path, c.HighestOffset, size)
}

// stillQuiet makes sure that the copies are of what the guest has now. When it has
// ended they are proven again.
func (r *restoration) stillQuiet(ctx context.Context) error {
	if r.t.state().hasEnded() {
		return nil
	}
	err := r.guest.stillQuiet(ctx)
	if errors.Is(err, errGuestEnded) {
		return r.files.stageAgain(ctx)
	}
	return err
}

// commit is what can't be undone, and is therefore not interrupted: from the
// destroy on, until the guest runs again on proven files.
func (r *restoration) commit(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	runs := !r.t.state().hasEnded()
	if err := r.t.enter(eventCommit); err != nil {
		return err
	}
	if runs {
		if err := r.destroy(ctx); err != nil {
			return err
		}
	}
	if err := r.files.publish(ctx); err != nil {
		return err
	}
	if err := r.startAgain(ctx); err != nil {
		return err
	}
	if r.t.history != nil {
		if err := r.files.removeInherited(ctx); err != nil {
			return err
		}
	}
	if err := r.files.removeBegun(ctx); err != nil {
		return err
	}
	return unpin(ctx, r.t)
}

// destroy ends the domain's QEMU. When that fails and QEMU lives on, the guest is
// let go on, and only then the copies are given up: it may end all the same, a
// moment later, and then they are what its files are made of.
func (r *restoration) destroy(ctx context.Context) error {
	t := r.t
	err := t.step(ctx, stepDestroy, "", func() error { return t.run.hypervisor.Destroy(ctx, t.plan.UUID) })
	r.guest.endPause()
	if err == nil || r.guest.gone(ctx) {
		return t.enter(eventDestroy)
	}
	cleanup := t.takeUndos(stepCleanup)
	rerr := t.rollback(ctx)
	if r.guest.gone(ctx) {
		// It ended after all, and may have written before.
		return errors.Join(t.enter(eventDestroy), r.files.stageAgain(ctx))
	}
	if rerr == nil {
		t.returnUndos(cleanup)
		rerr = t.enter(eventRevert)
	}
	return errors.Join(err, rerr)
}

// startAgain leaves the domain in the state it was found in.
func (r *restoration) startAgain(ctx context.Context) error {
	t, hv := r.t, r.t.run.hypervisor
	switch {
	case t.state() == stateStaysOff && !r.endedByNova(ctx):
		t.notef("the guest powered itself off during the run; its files are back, and it stays off")
		return nil
	case t.plan.Found != StateRunning && t.plan.Found != StatePaused:
		return nil
	case t.run.plan.Options.NoReboot:
		t.notef("its files are back; the domain is off, because --no-reboot was given%s", r.laterReboot())
		return nil
	}
	if t.run.cloud != nil {
		return r.reboot.intoService(ctx)
	}
	err := t.step(ctx, stepStart, "", func() error {
		err := hv.Start(ctx, t.plan.UUID, t.plan.Found == StatePaused)
		if !errors.Is(err, ErrNoDomain) {
			return err
		}
		// Somebody undefined it meanwhile; its definition was saved before.
		xml, err := r.guest.savedDefinition()
		if err == nil {
			err = hv.Define(ctx, xml)
		}
		if err == nil {
			err = hv.Start(ctx, t.plan.UUID, t.plan.Found == StatePaused)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("its files are back and proven, but it does not start: %w", err)
	}
	r.guest.endDowntime()
	return r.confirm(ctx)
}

// endedByNova is true when the guest did not power itself off: an admin, whom no
// lock stops, had Nova hard reboot it while its files were missing, which ended in
// ERROR (nova/virt/libvirt/driver.py, _hard_reboot).
func (r *restoration) endedByNova(ctx context.Context) bool {
	if r.t.run.cloud == nil {
		return false
	}
	server, err := r.t.run.cloud.Server(ctx, r.t.plan.UUID)
	return err == nil && server.VMState == VMError
}

// laterReboot says how an instance that is left off gets going.
func (r *restoration) laterReboot() string {
	if r.t.run.cloud == nil {
		return ""
	}
	return ": Nova will show it as SHUTOFF in some seconds; " +
		"bring it back with os-rescue reboot --instance " + r.t.plan.UUID + " --state SHUTOFF"
}

// confirm waits until a new QEMU holds exactly the published files.
func (r *restoration) confirm(ctx context.Context) error {
	limit := r.t.run.settings.StartTimeout
	return r.t.step(ctx, stepConfirm, "", func() error {
		deadline := time.Now().Add(limit)
		for {
			i, err := r.guest.look(ctx)
			if err != nil {
				return err
			}
			if i.PID != 0 && i.process != r.t.plan.Process && i.Verdict == VerdictIntact && r.files.isOnPublished(i) {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%w: %s after its start the domain is %s and its files %s: %v", ErrUnproven, limit, i.State, i.Verdict, i.Reasons)
			}
			pause(ctx, 50*time.Millisecond)
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
func (r *restoration) watch(ctx context.Context) error {
	pids, err := processesNamed(procDir, "nova-compute")
	if err != nil || len(pids) == 0 {
		return err
	}
	t := r.t
	again := false
	for end := time.Now().Add(t.run.settings.Watch); time.Now().Before(end); pause(ctx, time.Second) {
		d, err := r.guest.domain(ctx)
		if err != nil {
			return err
		}
		if d.State != StateShutOff {
			continue
		}
		if again {
			return t.enter(eventNovaStop)
		}
		again = true
		end = time.Now().Add(2 * t.run.settings.Watch)
		zerolog.Ctx(ctx).Info().Str("domain", t.plan.Domain).Msg("it was stopped again, by Nova as it seems: starting it once more")
		t.notef("something stopped it after its start, Nova as it seems; it was started again: tell Nova with a hard reboot")
		if err := t.run.hypervisor.Start(ctx, t.plan.UUID, t.plan.Found == StatePaused); err != nil {
			return err
		}
	}
	return nil
}
