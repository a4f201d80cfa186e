package recover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// errNotYet: a hard reboot was asked for, and how it ends is not known yet.
var errNotYet = errors.New("the hard reboot has not ended")

// reboot is the hard reboot of one instance through Nova.
type reboot struct {
	t     *task
	guest *guest
	files *set
}

// newReboot returns the hard reboot of a task's instance, to end on those files.
func newReboot(t *task, g *guest, files *set) *reboot {
	return &reboot{t: t, guest: g, files: files}
}

// only hard reboots an instance whose files are in order. ErrRefused when they are
// not, errNotYet when its end is not known, and Cloud's errors.
func (r *reboot) only(ctx context.Context) error {
	remote := r.t.run.plan.Options.Reboot.Remote
	done := r.isBackHere
	if remote {
		done = r.isBackThere
	}
	if remote || r.t.history != nil {
		return r.carryOut(ctx, done)
	}
	i, err := r.guest.look(ctx)
	if err != nil {
		return err
	}
	if i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected {
		return fmt.Errorf("%w: its files are %s by now: %s", ErrRefused, i.Verdict, strings.Join(i.Reasons, "; "))
	}
	return r.carryOut(ctx, done)
}

// intoService brings an instance whose files are published back into service, in
// the state it was found in.
func (r *reboot) intoService(ctx context.Context) error {
	if err := r.carryOut(ctx, r.isBackHere); err != nil {
		return fmt.Errorf("its files are back and proven, but it is not back in service: %w", err)
	}
	r.guest.endDowntime()
	return r.pauseAsFound(ctx)
}

// carryOut has Nova reboot the instance, and waits until done says that it is
// back: so one that is rebooting already, or was rebooted by a run that was
// killed, is not rebooted again. Nova sets the task before it answers 202 and
// clears it at the end (nova/compute/api.py, _hard_reboot_instance, and
// nova/compute/manager.py, reboot_instance): no task any more means that it is over.
//
// Once a reboot is asked for, the wish to stop is no longer heard: half a reboot
// can't be undone.
func (r *reboot) carryOut(ctx context.Context, done rebootDone) error {
	return r.t.step(ctx, stepReboot, "", func() error {
		limit := r.t.run.plan.Options.Reboot.Timeout
		if limit <= 0 {
			limit = r.t.run.settings.RebootTimeout
		}
		w := &rebootWait{t: r.t, guest: r.guest, done: done, end: time.Now().Add(limit)}
		return w.run(ctx)
	})
}

// isBackHere is true when the domain runs in a new QEMU that has exactly the
// published files open.
func (r *reboot) isBackHere(ctx context.Context, ended rebootEnded) (bool, string, error) {
	i, err := r.guest.look(ctx)
	switch {
	case errors.Is(err, ErrNoDomain):
		return false, "libvirt does not know its domain (yet)", nil
	case err != nil:
		return false, "", err
	case i.PID == 0:
		return false, "its domain is off", nil
	case i.process == r.t.plan.Process && (ended != theirReboot || r.t.plan.Action != ActionHardReboot):
		return false, "its QEMU is still the old one", nil
	case i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected || !r.files.isOnPublished(i):
		return false, fmt.Sprintf("its QEMU does not run on the published files (%s: %v)", i.Verdict, i.Reasons), nil
	}
	return true, "", nil
}

// isBackThere is true when a reboot was seen to end, or Nova has a newer one on
// record than when the run was planned.
func (r *reboot) isBackThere(ctx context.Context, ended rebootEnded) (bool, string, error) {
	if ended != noReboot {
		return true, "", nil
	}
	last, err := r.t.run.cloud.LastReboot(ctx, r.t.plan.UUID)
	return err == nil && last != r.t.plan.LastReboot, "Nova has no new reboot of it on record", err
}

// pauseAsFound pauses an instance that was found paused, the way it was.
func (r *reboot) pauseAsFound(ctx context.Context) error {
	t := r.t
	if t.plan.Found != StatePaused {
		return nil
	}
	if t.run.cloud == nil || t.plan.Server == nil || t.plan.Server.VMState != VMPaused {
		return t.step(ctx, stepSuspend, "", func() error { return t.run.hypervisor.Suspend(ctx, t.plan.UUID) })
	}
	return t.step(ctx, stepSuspend, "", func() error {
		if err := t.run.cloud.Pause(ctx, t.plan.UUID); err != nil {
			return err
		}
		for end := time.Now().Add(t.run.settings.StartTimeout); ; pause(ctx, t.run.pollInterval) {
			server, err := t.run.cloud.Server(ctx, t.plan.UUID)
			if err != nil || server.VMState == VMPaused {
				return err
			}
			if time.Now().After(end) {
				return fmt.Errorf("%w: Nova has not paused it again in %s: it is %s", errNotYet, t.run.settings.StartTimeout, server.Status)
			}
		}
	})
}

// failed says how a hard reboot failed. One whose end is not known yet is not
// settled, and left to resume, which looks before it asks again.
func (r *reboot) failed(err error) (report InstanceReport, settled bool) {
	t := r.t
	switch {
	case errors.Is(err, errNotYet), errors.Is(err, ErrCloudUnavailable), errors.Is(err, context.Canceled) && t.history != nil:
		return t.end(OutcomeFailed, t.fail(err, "Its files are in their place",
			"Look again, and go on, with: os-rescue resume "+t.run.plan.Run)), false
	case errors.Is(err, ErrRefused), errors.Is(err, context.Canceled):
		return t.end(OutcomeSkipped, t.fail(err, "It was not rebooted", "")), true
	default:
		return t.end(OutcomeFailed, t.fail(err, "Its files were in their place before", "See: openstack server show "+t.plan.UUID)), true
	}
}

// awaitStill waits out a reboot that is under way, and refuses to go on with an
// instance that Nova has moved to another host since the run was interrupted: its
// domain is off in one moment of a reboot and runs in the next. ErrRefused,
// errNotYet.
func (r *reboot) awaitStill(ctx context.Context) error {
	if r.t.run.cloud == nil {
		return nil
	}
	for end := time.Now().Add(r.t.run.settings.RebootTimeout); ; pause(ctx, r.t.run.pollInterval) {
		server, err := r.t.run.cloud.Server(ctx, r.t.plan.UUID)
		switch {
		case errors.Is(err, ErrNoInstance):
			return nil
		case err != nil:
			return fmt.Errorf("ask Nova how it is: %w", err)
		case movedAway(r.t.plan, server):
			return errMoved(server)
		case !rebooting(server):
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%w: Nova is still rebooting it (task_state %s)", errNotYet, server.TaskState)
		}
	}
}

// movedAway is true when Nova has the instance on another host than when the run
// was planned.
func movedAway(plan InstancePlan, server Server) bool {
	return plan.Server != nil && !server.Unknown && server.Host != plan.Server.Host
}

func errMoved(server Server) error {
	return fmt.Errorf("%w: Nova has it on host %q by now: it was evacuated or migrated since the run began, and its files may be that host's",
		ErrRefused, server.Host)
}
