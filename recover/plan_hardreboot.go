package recover

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// rebootPlans makes the plans of hard reboots.
type rebootPlans struct{ *planner }

// plan plans the hard reboot of one instance. One whose files are not all in
// their place is refused: Nova destroys the domain before it looks for them
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
		return todo.refuse("it is %s, and only %s instances are meant (--state names others)", i.server.Status, strings.Join(states, " and ")), nil
	case i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected:
		return todo.refuse("its files are %s, and Nova destroys a domain before it looks for its files: rescue it first (os-rescue --instance %s on host %s): %s",
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

// stale says that the scan of another host is too old to be relied on.
func (p rebootPlans) stale(i Instance) string {
	r := p.Options.Reboot
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
