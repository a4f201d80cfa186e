package recover

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

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
		return plan.refuse("it is %s, and only %s instances are meant (--state names others)",
			i.server.Status, strings.Join(states, " and ")), nil
	case i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected:
		return plan.refuse("its files are %s, and Nova destroys a domain before it looks for its files: "+
			"rescue it first (os-rescue --instance %s on host %s): %s", i.Verdict, i.UUID, i.server.Host, strings.Join(i.Reasons, "; ")), nil
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
