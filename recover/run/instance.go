package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/run/backup"
	"github.com/os-rescue/os-rescue/recover/run/guest"
	"github.com/os-rescue/os-rescue/recover/run/hardreboot"
	"github.com/os-rescue/os-rescue/recover/run/live"
	"github.com/os-rescue/os-rescue/recover/run/relink"
	"github.com/os-rescue/os-rescue/recover/run/rescue"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// instance is the whole work on one instance of a run: it chooses the way, and says
// how it ended.
type instance struct {
	t     *task.Task
	guest *guest.Guest
	files *staging.Set

	reboot      *hardreboot.Reboot
	backup      *backup.Backup
	restoration *rescue.Restoration
	switchover  *live.Switchover
	// replan makes a new plan from what an instance is now.
	replan func(ctx context.Context, i recover.Instance) (recover.InstancePlan, error)
}

// workshop is what the work on each instance of a run needs besides the run.
type workshop struct {
	dirs   *staging.Directories
	once   *staging.Once
	backup *backup.Dir // nil when the run keeps no backup
	replan func(ctx context.Context, i recover.Instance) (recover.InstancePlan, error)
}

// newInstance returns the work on an instance of the run's plan.
func newInstance(r *task.Run, w workshop, plan recover.InstancePlan) *instance {
	t := task.New(r, plan)
	g := guest.New(t, func() (string, error) {
		if r.Plan.Command == recover.CommandRestore {
			store, err := manifest.Open(r.Plan.Options.BackupDir, r.Plan.Options.AcceptOwner)
			if err != nil {
				return "", err
			}
			defer store.Close()
			return store.Definition(plan.UUID)
		}
		return inventory.In(r.Settings.StateDir).Definition(plan.UUID)
	})
	files := staging.NewSet(t, w.dirs, w.once)
	i := &instance{t: t, guest: g, files: files, replan: w.replan,
		reboot:     hardreboot.New(t, g, files),
		backup:     backup.New(t, g, w.backup, w.once),
		switchover: live.New(t, g, files, w.dirs)}
	i.restoration = rescue.New(t, g, files, i.backup, i.reboot)
	return i
}

// close closes what the work has open.
func (i *instance) close() { i.switchover.Close() }

// do works the instance's plan off. refused says why it is to be left alone; nil
// when it is not. settled is false when the instance is left neither in service nor
// as it was found.
func (i *instance) do(ctx context.Context, refused error) (report recover.InstanceReport, settled bool) {
	t := i.t
	log := zerolog.Ctx(ctx).With().Str("instance", t.Plan.UUID).Str("domain", t.Plan.Domain).Logger()
	ctx = log.WithContext(ctx)
	switch {
	case t.Plan.Action == recover.ActionRefuse:
		return t.End(recover.OutcomeSkipped, t.Fail(recover.Refusal(t.Plan.Refusal), "Nothing of it was touched", "")), true
	case t.Plan.Action == recover.ActionNone:
		return t.End(recover.OutcomeIntact, nil), true
	case ctx.Err() != nil && t.History == nil:
		return t.End(recover.OutcomeInterrupted, t.Fail(errors.New(recover.StoppedBy(ctx)+" before it began"),
			sentence("Nothing of it was touched", i.t.Run.Pins.WhoHolds(ctx, i.t.Plan.UUID)), "Run the command again")), true
	case errors.Is(refused, recover.ErrDeleted) && t.History == nil:
		return i.deleted(refused), true
	case refused != nil && t.History == nil:
		return t.End(recover.OutcomeSkipped, t.Fail(refused, "Nothing of it was touched; its lost files stay held until this run ends", "")), true
	}
	outcome, err := i.run(ctx)
	if err == nil && t.Plan.NextStart != "" {
		t.Notef("%s", t.Plan.NextStart)
	}
	if err != nil {
		log.Debug().Err(err).Str("state", string(t.State())).Msg("the instance failed")
		return i.failed(ctx, err)
	}
	if t.State() == task.StateStoppedByNova {
		off := errors.New("its files are back and proven, but it is off: " +
			"nova-compute has it as stopped, and ends it whenever libvirt starts it")
		return t.End(recover.OutcomeFailed, t.Fail(off, "No data is lost",
			"Have Nova start it: os-rescue reboot --instance "+t.Plan.UUID+" --state SHUTOFF")), true
	}
	if note := offAfter(ctx, t.Run, t.Plan); note != "" && outcome == recover.OutcomeRescued {
		t.Notef("%s", note)
	}
	return t.End(outcome, nil), true
}

// relink gives the files that still have a name their right one. A run that is resumed has
// nothing of them open yet: the keeper holds only what has lost its last name.
func (i *instance) relink(ctx context.Context) error {
	if i.t.Run.Resuming && len(i.t.Plan.Relinks) > 0 {
		now, err := i.guest.Look(ctx)
		if err == nil {
			err = i.t.Run.Pins.Pin(ctx, now)
		}
		if err != nil && !errors.Is(err, recover.ErrNoDomain) {
			return err
		}
	}
	return relink.Back(ctx, i.t)
}

// failed leaves an instance whose work has failed as it was found, if it may, and
// says what is safe.
func (i *instance) failed(ctx context.Context, err error) (report recover.InstanceReport, settled bool) {
	t, resume := i.t, "os-rescue resume "+i.t.Run.Plan.Run
	final := &task.Final{}
	outcome, again, goOn := recover.OutcomeFailed, "When the cause is gone, run the command again", "When the cause is gone: "+resume
	if ctx.Err() != nil && recover.IsInterruption(err) {
		err = t.Stopped(ctx, err)
		outcome, again, goOn = recover.OutcomeInterrupted, "Run the command again", "Go on with: "+resume
	}
	if errors.Is(err, recover.ErrCorrupt) {
		again = afterCorrupt(t.Run.Plan.Command, t.Plan.Action)
	}
	switch isFinal := errors.As(err, &final); {
	case t.Plan.Action == recover.ActionHardReboot:
		return i.reboot.Failed(err, outcome)
	case t.Plan.Action == recover.ActionDirectories:
		return t.End(outcome, t.Fail(err, "Its files are in place, and nothing else of it was touched",
			"Change the directory by hand")), true
	case isFinal && errors.Is(err, recover.ErrDeleted):
		return i.deleted(err), true
	case isFinal && errors.Is(err, recover.ErrRefused):
		outcome := recover.OutcomeSkipped
		if t.DestroyedBefore() {
			outcome = recover.OutcomeFailed // it is not as it was found
		}
		return t.End(outcome, t.Fail(err, i.files.WhatIsSafe(ctx), final.Next)), true
	case isFinal:
		return t.End(recover.OutcomeFailed, t.Fail(err, "No data is lost", final.Next)), true
	case i.isGone(ctx, err):
		next := "Nothing can bring that back: restore it from a backup " +
			"(os-rescue restore --from DIR) or a snapshot, or have a cached image fetched again"
		if errors.Is(err, staging.ErrDamaged) {
			next = "See what is left in the copy that is kept, or restore it from a backup (os-rescue restore --from DIR) or a snapshot"
		}
		return t.End(recover.OutcomeFailed, t.Fail(err, i.files.WhatIsSafe(ctx), next)), true
	case t.State() == task.StateOldKept:
		return t.End(recover.OutcomeFailed, t.Fail(errors.Join(err, staging.Unpin(context.WithoutCancel(ctx), t)),
			"It runs on its new disk, and the disk as it was before is in a file beside it",
			"Compare the two, and tell os-rescue's developers")), true
	case errors.Is(err, recover.ErrOlder):
		return i.outrun(ctx, err)
	case errors.Is(err, guest.ErrCrashed) && t.State().IsCommitted():
		return t.End(recover.OutcomeFailed, t.Fail(err, i.switchover.AfterCrash(ctx),
			"When its guest is found to be well, this lets the old disks go, or keeps those in files that nothing has proven: "+resume)), false
	case errors.Is(err, live.ErrNotVerified):
		said := ""
		if outcome == recover.OutcomeInterrupted { // which is all that err says then
			said = live.ErrNotVerified.Error()
		}
		safe := sentence(said, i.files.WhatIsSafe(ctx), t.Run.Pins.WhoHolds(ctx, t.Plan.UUID))
		return t.End(outcome, t.Fail(err, safe, "To keep the old disks in files beside the new ones, which needs room: "+resume+
			"; or, when its guest is found to be well, to let them go: "+task.LetGo(t.Run.Plan.Run))), false
	case t.State().IsCommitted():
		return t.End(outcome, t.Fail(err, i.files.WhatIsSafe(ctx), goOn)), false
	case i.guest.EndedMeanwhile() && !errors.Is(err, recover.ErrDeleted):
		return t.End(outcome, t.Fail(err, i.files.WhatIsSafe(ctx)+"; the guest ended in the middle", "Go on with: "+resume)), false
	}
	if rerr := t.Rollback(ctx); rerr != nil {
		return t.End(recover.OutcomeFailed, t.Fail(errors.Join(err, fmt.Errorf("and putting it back as it was found failed: %w", rerr)),
			sentence("Nothing was destroyed: its QEMU still has every byte", t.Run.Pins.WhoHolds(ctx, t.Plan.UUID)),
			"See how it is with `virsh domstate "+t.Plan.Domain+"`, then: "+resume)), false
	}
	if errors.Is(err, recover.ErrDeleted) {
		// The undo of the copies may have been given up when the guest ended.
		return i.deleted(errors.Join(err, i.files.Remove(ctx))), true
	}
	if t.History != nil {
		// Not yet as it was found: only a plan made anew begins after all is undone.
		return t.End(outcome, t.Fail(err, i.files.WhatIsSafe(ctx), goOn)), false
	}
	if errors.Is(err, recover.ErrRefused) || errors.Is(err, recover.ErrConflict) {
		outcome, again = recover.OutcomeSkipped, ""
	}
	safe := sentence("Nothing was destroyed", i.files.WhatStays(), i.guest.HowItIs(ctx), t.Run.Pins.WhoHolds(ctx, t.Plan.UUID))
	return t.End(outcome, t.Fail(err, safe, again)), true
}

// afterCorrupt says what can be done about an image that is corrupt: no later run finds it whole.
func afterCorrupt(command recover.Command, action recover.Action) string {
	const keep = "os-rescue backup --to DIR keeps a copy that equals the image to the byte"
	switch {
	case command == recover.CommandRestore:
		return "Restore another backup, or a snapshot"
	case action == recover.ActionReboot:
		return "os-rescue --mode live makes a new image from what the guest reads (with --dry-run it says whether it can); " + keep
	case action == recover.ActionPublish:
		return keep + ", and os-rescue restore puts that back, to be repaired"
	default:
		return keep
	}
}

// sentence joins what is said of an instance; parts may be empty.
func sentence(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}

// outrun ends the restore of an instance whose guest has written since the backup: its newer
// files are held, so nothing of the backup is published. Another try would meet the same.
func (i *instance) outrun(ctx context.Context, err error) (report recover.InstanceReport, settled bool) {
	t := i.t
	ctx = context.WithoutCancel(ctx)
	outcome, safe := recover.OutcomeSkipped, "Nothing was destroyed: it is as it was found, and what is newer stays held"
	if t.DestroyedBefore() {
		outcome = recover.OutcomeFailed
		safe = "No disk of the backup was put back; the interrupted run has ended the domain, and what is newer stays held"
	} else if i.guest.EndedMeanwhile() {
		outcome = recover.OutcomeFailed
		safe = "No disk of the backup was put back; the guest ended in the middle, and what is newer stays held"
	}
	undone := t.Rollback(ctx)
	if t.History != nil {
		undone = errors.Join(undone, i.files.RemoveInherited(ctx))
	}
	if undone != nil {
		return t.End(recover.OutcomeFailed, t.Fail(errors.Join(err, fmt.Errorf("and putting it back as it was found failed: %w", undone)),
			"No disk of the backup was put back, and what is newer stays held", "Then: os-rescue resume "+t.Run.Plan.Run)), false
	}
	return t.End(outcome, t.Fail(err, safe, "")), true
}

// deleted reports an instance that Nova has deleted: before anything of it was published, or
// while it was rebooted.
func (i *instance) deleted(err error) recover.InstanceReport {
	t := i.t
	var paths []string
	if t.History != nil {
		paths = slices.Collect(maps.Keys(t.History.Published))
	}
	if i.files.AreAllBack() {
		for _, f := range t.Written() {
			paths = append(paths, f.Path)
		}
	}
	slices.Sort(paths)
	safe := "Nothing of it was put back; the keeper goes on holding its lost files"
	if paths = slices.Compact(paths); len(paths) > 0 {
		safe = "The run had put back " + strings.Join(paths, ", ") + " before; the keeper goes on holding its lost files"
	}
	return t.End(recover.OutcomeSkipped, t.Fail(err, safe, "When nobody needs them: "+task.LetGo(t.Run.Plan.Run)))
}

// isGone is true when an interrupted run can't be finished because of files that nobody
// holds any more, and of which there is no proven copy: the host was booted, or QEMU and the
// keeper have both ended.
func (i *instance) isGone(ctx context.Context, err error) bool {
	missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, staging.ErrDamaged)
	return i.t.History != nil && missing && !i.guest.SameProcess() && len(i.files.Gone(ctx)) > 0
}

// run chooses the way: afresh, or on from where an interrupted run ended.
func (i *instance) run(ctx context.Context) (recover.Outcome, error) {
	if i.t.History != nil {
		return i.resume(ctx)
	}
	return i.fresh(ctx)
}

func (i *instance) fresh(ctx context.Context) (recover.Outcome, error) {
	t := i.t
	switch t.Plan.Action {
	case recover.ActionNone:
		return recover.OutcomeIntact, staging.Unpin(ctx, t)
	case recover.ActionDirectories:
		return recover.OutcomeIntact, staging.OwnDirectories(ctx, t)
	case recover.ActionRefuse:
		return recover.OutcomeSkipped, recover.Refusal(t.Plan.Refusal)
	case recover.ActionBackup:
		return recover.OutcomeRescued, i.backup.Take(ctx)
	case recover.ActionHardReboot:
		return recover.OutcomeRescued, i.reboot.Only(ctx)
	}
	if err := i.relink(ctx); err != nil {
		return recover.OutcomeFailed, err
	}
	switch t.Plan.Action {
	case recover.ActionLive:
		t.SetMode(recover.ModeLive)
		err := i.switchover.CarryOut(ctx)
		switch {
		case errors.Is(err, live.ErrEnded):
			err = i.restoration.CarryOut(ctx)
		case errors.Is(err, guest.ErrCrashed) && !errors.Is(err, recover.ErrUnproven) && t.State().IsCommitted():
			err = errors.Join(err, i.restoration.StartAgain(ctx))
		}
		return recover.OutcomeRescued, err
	case recover.ActionReboot:
		if t.Run.Plan.Command == recover.CommandRescue {
			t.SetMode(recover.ModeReboot)
		}
		if why := t.Plan.NotLive; why != "" {
			zerolog.Ctx(ctx).Info().Str("reason", why).Msg("not rescued live")
			t.Notef("not rescued live: %s", why)
		}
	}
	return recover.OutcomeRescued, i.restoration.CarryOut(ctx)
}
