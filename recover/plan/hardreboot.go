package plan

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/selection"
)

// rebootPlans makes the plans of hard reboots.
type rebootPlans struct{ *planner }

// plan plans the hard reboot of one instance. It refuses one whose files are not all
// in place: Nova destroys the domain before it looks for them
// (nova/virt/libvirt/driver.py, _hard_reboot).
func (p rebootPlans) plan(ctx context.Context, i recover.Instance) (recover.InstancePlan, error) {
	todo := base(i)
	states := p.Options.Reboot.Statuses()
	switch why := p.inHand(i.UUID); {
	case why != "":
		return todo.Refuse("%s", why), nil
	case i.Misplaced != "":
		return todo.Refuse("%s", i.Misplaced), nil
	case i.Disagreement != "":
		return todo.Refuse("%s", i.Disagreement), nil
	case i.Withheld != "":
		return todo.Refuse("%s", strings.Join(append(i.Reasons, i.Possible...), "; ")), nil
	case !selection.Meant(*i.Server, states):
		return todo.Refuse("it is %s, and this run reboots only %s instances (--state names other statuses)",
			i.Server.Status, strings.Join(states, " and ")), nil
	case i.LacksBootFilesOnly(): // the reboot is what brings them
	case i.Verdict == recover.VerdictConflict && i.IsWhole():
		return todo.Refuse("%s", wholeButDisputed(i)), nil
	case i.Verdict != recover.VerdictIntact && i.Verdict != recover.VerdictUnaffected:
		return todo.Refuse("its files are not all in place (%s), and Nova destroys a domain before it looks for its files: "+
			"rescue it first (os-rescue --instance %s on host %s): %s",
			i.Verdict, i.UUID, i.Server.Host, strings.Join(i.Reasons, "; ")), nil
	}
	if why := p.stale(i); why != "" {
		return todo.Refuse("%s", why), nil
	}
	todo.Action = recover.ActionHardReboot
	if why, err := p.wouldLose(ctx, i, todo); why != "" || err != nil {
		return todo.Refuse("%s", why), err
	}
	if why, err := p.nova.refuse(ctx, i, todo); why != "" || err != nil {
		return todo.Refuse("%s", why), err
	}
	if why, err := p.wouldNotStart(ctx, i, todo); why != "" || err != nil {
		return todo.Refuse("%s", why), err
	}
	todo.Steps = []string{"hard reboot it through Nova and wait until it is ACTIVE"}
	if recover.IsRebooting(*i.Server) {
		todo.Steps = []string{"wait for the reboot that is under way"}
	}
	return todo, nil
}

// stale says that the scan of the instance's host is too old to rely on; empty when it
// is not.
func (p rebootPlans) stale(i recover.Instance) string {
	o := p.Options.Reboot
	for _, report := range o.Reports {
		if report.Host != i.Server.Host || o.MaxAge <= 0 {
			continue
		}
		if age := time.Since(report.Taken); age > o.MaxAge {
			return fmt.Sprintf("the scan of %s is %s old, and the instance's files may be gone by now: scan that host again",
				report.Host, age.Round(time.Second))
		}
	}
	return ""
}
