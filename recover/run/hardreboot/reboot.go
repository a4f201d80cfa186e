package hardreboot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/run/guest"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// errNotYet: a hard reboot was asked for, and how it ends is not known yet.
var errNotYet = errors.New("the hard reboot has not ended")

// Reboot is the hard reboot of one instance through Nova.
type Reboot struct {
	t     *task.Task
	guest *guest.Guest
	files *staging.Set
}

// New returns the hard reboot of a task's instance, to end on those files.
func New(t *task.Task, g *guest.Guest, files *staging.Set) *Reboot {
	return &Reboot{t: t, guest: g, files: files}
}

// Only hard reboots an instance whose files are in order, and does nothing else with it.
// recover.ErrRefused when they are not in order, and Cloud's errors. Failed tells whether
// the error leaves the reboot's end open.
func (r *Reboot) Only(ctx context.Context) error {
	remote := r.t.Run.Plan.Options.Reboot.Remote
	done := r.isBackHere
	if remote {
		done = r.isBackThere
	}
	if remote || r.t.History != nil {
		return r.carryOut(ctx, done)
	}
	i, err := r.guest.Look(ctx)
	if errors.Is(err, recover.ErrNoDomain) {
		i, err = r.lookWithout(ctx)
	}
	if err != nil {
		return err
	}
	if i.Verdict != recover.VerdictIntact && i.Verdict != recover.VerdictUnaffected && !i.LacksBootFilesOnly() {
		return fmt.Errorf("%w: its files are %s by now: %s", recover.ErrRefused, i.Verdict, strings.Join(i.Reasons, "; "))
	}
	return r.carryOut(ctx, done)
}

// lookWithout scans an instance whose domain libvirt does not know: a hard reboot that
// failed has undefined it, and the next one defines it anew.
func (r *Reboot) lookWithout(ctx context.Context) (recover.Instance, error) {
	server, err := r.t.Run.Cloud.Server(ctx, r.t.Plan.UUID)
	if err != nil {
		return recover.Instance{}, fmt.Errorf("ask Nova how it is: %w", err)
	}
	return r.t.Run.Absent(ctx, server)
}

// IntoService brings an instance whose files are published back into service, in the
// state that it was found in. Its errors are those of Only.
func (r *Reboot) IntoService(ctx context.Context) error {
	if err := r.carryOut(ctx, r.isBackHere); err != nil {
		return fmt.Errorf("its files are back and proven, but it is not back in service: %w", err)
	}
	r.guest.EndDowntime()
	return r.PauseAsFound(ctx)
}

// carryOut has Nova reboot the instance, and waits until done says that it is
// back: so one that is rebooting already, or was rebooted by a run that was
// killed, is not rebooted again. Nova sets the task before it answers 202 and
// clears it at the end (nova/compute/api.py, _hard_reboot_instance, and
// nova/compute/manager.py, reboot_instance): no task any more means that it is over.
//
// Once a reboot is asked for, the wish to stop is no longer heard: half a reboot
// can't be undone.
func (r *Reboot) carryOut(ctx context.Context, done rebootDone) error {
	return r.t.Step(ctx, journal.StepReboot, "", func() error {
		limit := r.t.Run.Plan.Options.Reboot.Timeout
		if limit <= 0 {
			limit = r.t.Run.Settings.RebootTimeout
		}
		w := &rebootWait{t: r.t, guest: r.guest, done: done, end: time.Now().Add(limit)}
		return w.run(ctx)
	})
}

// isBackHere is true when the domain runs in a new QEMU that has exactly the
// published files open. staging.ErrElsewhere when it never will.
func (r *Reboot) isBackHere(ctx context.Context, ended rebootEnded) (bool, string, error) {
	i, err := r.guest.Look(ctx)
	switch {
	case errors.Is(err, recover.ErrNoDomain):
		return false, "libvirt does not know its domain (yet)", nil
	case err != nil:
		return false, "", err
	case i.PID == 0:
		return false, "its domain is off", nil
	case i.Process == r.t.Plan.Process && (ended != theirReboot || r.t.Plan.Action != recover.ActionHardReboot):
		return false, "its QEMU is still the old one", nil
	}
	notYet := staging.IsOpen(ctx, r.files, i)
	switch {
	case errors.Is(notYet, recover.ErrUnproven):
		return false, notYet.Error(), nil
	case notYet != nil:
		return false, "", notYet
	case !i.IsWhole():
		return false, fmt.Sprintf("its files are not in their place (%s: %v)", i.Verdict, i.Reasons), nil
	}
	staging.Remember(ctx, r.files)
	return true, "", nil
}

// isBackThere is true when a reboot was seen to end, or Nova has a newer one on
// record than when the run was planned.
func (r *Reboot) isBackThere(ctx context.Context, ended rebootEnded) (bool, string, error) {
	if ended != noReboot {
		return true, "", nil
	}
	last, err := r.t.Run.Cloud.LastReboot(ctx, r.t.Plan.UUID)
	return err == nil && last != r.t.Plan.LastReboot, "Nova has no new reboot of it on record", err
}

// PauseAsFound pauses an instance that was found paused: through Nova if Nova had it as
// paused, else through libvirt. The errors are theirs.
func (r *Reboot) PauseAsFound(ctx context.Context) error {
	t := r.t
	if t.Plan.Found != recover.StatePaused {
		return nil
	}
	if t.Run.Cloud == nil || t.Plan.Server == nil || t.Plan.Server.VMState != recover.VMPaused {
		return t.Step(ctx, journal.StepSuspend, "", func() error { return t.Run.Hypervisor.Suspend(ctx, t.Plan.UUID) })
	}
	return t.Step(ctx, journal.StepSuspend, "", func() error {
		if err := t.Run.Cloud.Pause(ctx, t.Plan.UUID); err != nil {
			return err
		}
		for end := time.Now().Add(t.Run.Settings.StartTimeout); ; recover.Pause(ctx, t.Run.PollInterval) {
			server, err := t.Run.Cloud.Server(ctx, t.Plan.UUID)
			if err != nil || server.VMState == recover.VMPaused {
				return err
			}
			if time.Now().After(end) {
				return fmt.Errorf("%w: Nova has not paused it again in %s: it is %s", errNotYet, t.Run.Settings.StartTimeout, server.Status)
			}
		}
	})
}

// Failed reports a hard reboot that failed with err, or was interrupted. One whose end is
// not known yet is not settled: it is left to resume, which looks before it asks again.
func (r *Reboot) Failed(err error, outcome recover.Outcome) (report recover.InstanceReport, settled bool) {
	t := r.t
	switch {
	case outcome == recover.OutcomeInterrupted && t.History == nil:
		return t.End(outcome, t.Fail(err, "It was not rebooted", "Run the command again")), true
	case errors.Is(err, errNotYet), errors.Is(err, recover.ErrCloudUnavailable), outcome == recover.OutcomeInterrupted:
		return t.End(outcome, t.Fail(err, "Its files are in their place",
			"Look again, and go on, with: os-rescue resume "+t.Run.Plan.Run)), false
	case errors.Is(err, recover.ErrRefused):
		return t.End(recover.OutcomeSkipped, t.Fail(err, "It was not rebooted", "")), true
	default:
		return t.End(recover.OutcomeFailed, t.Fail(err, "Its files were in their place before", "See: openstack server show "+t.Plan.UUID)), true
	}
}

// ErrMoved: Nova has the instance on another host since the run was planned. It is an
// ErrRefused.
var ErrMoved = fmt.Errorf("%w: Nova has it on another host by now", recover.ErrRefused)

// AwaitStill waits until no reboot is under way any more: in the middle of one the domain
// is off at one moment and runs at the next. It may end with errors of Cloud's, and with
// ErrMoved.
func (r *Reboot) AwaitStill(ctx context.Context) error {
	if r.t.Run.Cloud == nil {
		return nil
	}
	for end := time.Now().Add(r.t.Run.Settings.RebootTimeout); ; recover.Pause(ctx, r.t.Run.PollInterval) {
		server, err := r.t.Run.Cloud.Server(ctx, r.t.Plan.UUID)
		switch {
		case errors.Is(err, recover.ErrNoInstance):
			return nil
		case err != nil:
			return fmt.Errorf("ask Nova how it is: %w", err)
		case movedAway(r.t.Plan, server):
			return errMoved(server)
		case !recover.IsRebooting(server):
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%w: Nova is still rebooting it (task_state %s)", errNotYet, server.TaskState)
		}
	}
}

// movedAway is true when Nova has the instance on another host than when the run
// was planned.
func movedAway(plan recover.InstancePlan, server recover.Server) bool {
	return plan.Server != nil && !server.Unknown && server.Host != plan.Server.Host
}

func errMoved(server recover.Server) error {
	return fmt.Errorf("%w: host %q: it was evacuated or migrated since the run began, and its files may be that host's", ErrMoved, server.Host)
}
