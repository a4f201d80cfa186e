package recover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// states returns the statuses of the instances that are meant.
func (o RebootOptions) states() []string {
	if len(o.States) == 0 {
		return []string{"ACTIVE"}
	}
	var states []string
	for _, s := range o.States {
		states = append(states, strings.ToUpper(s))
	}
	return states
}

// meant is true for an instance of one of the statuses, and for one that is being
// rebooted: that one is waited for.
func meant(s Server, states []string) bool {
	return slices.Contains(states, s.Status) || rebooting(s)
}

// reboot plans the hard reboot of one instance. One whose files are not all in
// their place is refused: Nova destroys the domain before it looks for them
// (nova/virt/libvirt/driver.py, _hard_reboot).
func (p *planner) reboot(ctx context.Context, i Instance) (InstancePlan, error) {
	plan := base(i)
	states := p.options.Reboot.states()
	switch {
	case p.unsettled[i.UUID] != "":
		return plan.refuse("%s", inHand(p.unsettled[i.UUID])), nil
	case i.disagreement != "":
		return plan.refuse("%s", i.disagreement), nil
	case !meant(*i.server, states):
		return plan.refuse("it is %s, and only %s instances are meant (--state names others)", i.server.Status, strings.Join(states, " and ")), nil
	case i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected:
		return plan.refuse("its files are %s, and Nova destroys a domain before it looks for its files: rescue it first (os-rescue --instance %s on host %s): %s",
			i.Verdict, i.UUID, i.server.Host, strings.Join(i.Reasons, "; ")), nil
	}
	if why := p.stale(i); why != "" {
		return plan.refuse("%s", why), nil
	}
	plan.Action = ActionHardReboot
	if why, err := p.refuseByNova(ctx, i, plan); why != "" || err != nil {
		return plan.refuse("%s", why), err
	}
	plan.Steps = []string{"hard reboot it through Nova and wait until it is ACTIVE"}
	if rebooting(*i.server) {
		plan.Steps = []string{"wait for the reboot that is under way"}
	}
	return plan, nil
}

// lastReboots notes, of instances of other hosts, the reboots that Nova has on
// record: those that come later were this run's, or somebody's meanwhile.
func (p *planner) lastReboots(ctx context.Context, plans []InstancePlan) error {
	if !p.options.Reboot.Remote {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(novaParallel)
	for n := range plans {
		if ip := &plans[n]; ip.Action == ActionHardReboot {
			g.Go(func() (err error) {
				if ip.LastReboot, err = p.cloud.LastReboot(ctx, ip.UUID); err != nil {
					err = fmt.Errorf("the last reboot of %s: %w", ip.UUID, err)
				}
				return err
			})
		}
	}
	return g.Wait()
}

// stale says that the scan of another host is too old to be relied on.
func (p *planner) stale(i Instance) string {
	r := p.options.Reboot
	for _, scan := range r.Reports {
		if scan.Host != i.server.Host || r.MaxAge <= 0 {
			continue
		}
		if age := time.Since(scan.Taken); age > r.MaxAge {
			return fmt.Sprintf("the scan of %s is %s old, and its files may be gone by now: scan that host again", scan.Host, age.Round(time.Second))
		}
	}
	return ""
}

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
