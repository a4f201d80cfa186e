package recover

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// rebootOnly hard reboots an instance whose files are in order.
func (t *task) rebootOnly(ctx context.Context) error {
	remote := t.s.plan.Options.Reboot.Remote
	done := t.rebootedHere
	if remote {
		done = t.rebootedThere
	}
	if remote || t.prior != nil {
		return t.hardReboot(ctx, done)
	}
	i, err := t.look(ctx)
	if err != nil {
		return err
	}
	if i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected {
		return fmt.Errorf("%w: its files are %s by now: %s", ErrRefused, i.Verdict, strings.Join(i.Reasons, "; "))
	}
	return t.hardReboot(ctx, done)
}

// rebootedThere is true when a reboot was seen to end, or Nova has a newer one on
// record than when the run was planned.
func (t *task) rebootedThere(ctx context.Context, ended rebootEnded) (bool, string, error) {
	if ended != noReboot {
		return true, "", nil
	}
	last, err := t.s.cloud.LastReboot(ctx, t.ip.UUID)
	return err == nil && last != t.ip.LastReboot, "Nova has no new reboot of it on record", err
}

// endReboot says how a hard reboot failed. One whose end is not known yet is left
// to resume, which looks before it asks again.
func (t *task) endReboot(err error) (InstanceReport, bool) {
	switch {
	case errors.Is(err, errNotYet), errors.Is(err, ErrCloudUnavailable), errors.Is(err, context.Canceled) && t.prior != nil:
		return t.end(OutcomeFailed, t.fail(err, "Its files are in their place", "Look again, and go on, with: os-rescue resume "+t.s.plan.Run)), false
	case errors.Is(err, ErrRefused), errors.Is(err, context.Canceled):
		return t.end(OutcomeSkipped, t.fail(err, "It was not rebooted", "")), true
	default:
		return t.end(OutcomeFailed, t.fail(err, "Its files were in their place before", "See: openstack server show "+t.ip.UUID)), true
	}
}
