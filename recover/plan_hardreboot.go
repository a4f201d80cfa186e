package recover

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// rebootPlans makes the plans of hard reboots.
type rebootPlans struct{ *planner }

// plan plans the hard reboot of one instance. It refuses one whose files are not all
// in place: Nova destroys the domain before it looks for them
// (nova/virt/libvirt/driver.py, _hard_reboot).
func (p rebootPlans) plan(ctx context.Context, i Instance) (InstancePlan, error) {
	todo := base(i)
	states := p.Options.Reboot.states()
	switch why := p.inHand(i.UUID); {
	case why != "":
		return todo.refuse("%s", why), nil
	case i.disagreement != "":
		return todo.refuse("%s", i.disagreement), nil
	case !meant(*i.server, states):
		return todo.refuse("it is %s, and this run reboots only %s instances (--state names other statuses)",
			i.server.Status, strings.Join(states, " and ")), nil
	case i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected:
		return todo.refuse("its files are not all in place (%s), and Nova destroys a domain before it looks for its files: "+
			"rescue it first (os-rescue --instance %s on host %s): %s",
			i.Verdict, i.UUID, i.server.Host, strings.Join(i.Reasons, "; ")), nil
	}
	if why := p.stale(i); why != "" {
		return todo.refuse("%s", why), nil
	}
	todo.Action = ActionHardReboot
	if why, err := p.nova.refuse(ctx, i, todo); why != "" || err != nil {
		return todo.refuse("%s", why), err
	}
	todo.Steps = []string{"hard reboot it through Nova and wait until it is ACTIVE"}
	if rebooting(*i.server) {
		todo.Steps = []string{"wait for the reboot that is under way"}
	}
	return todo, nil
}

// stale says that the scan of the instance's host is too old to rely on; empty when it
// is not.
func (p rebootPlans) stale(i Instance) string {
	o := p.Options.Reboot
	for _, report := range o.Reports {
		if report.Host != i.server.Host || o.MaxAge <= 0 {
			continue
		}
		if age := time.Since(report.Taken); age > o.MaxAge {
			return fmt.Sprintf("the scan of %s is %s old, and the instance's files may be gone by now: scan that host again",
				report.Host, age.Round(time.Second))
		}
	}
	return ""
}
