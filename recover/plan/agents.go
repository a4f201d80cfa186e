package plan

import (
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// haAgents returns the programs that stop, start or move an instance when its domain
// ends, by their command names, which the kernel cuts to 15 characters: those of
// masakari-monitors (masakarimonitors/instancemonitor and hostmonitor).
func haAgents() map[string]string {
	return map[string]string{
		"masakari-instan": "masakari-instancemonitor",
		"masakari-hostmo": "masakari-hostmonitor",
	}
}

// warnOfAgents warns of programs that would act by themselves on a destroyed domain.
func warnOfAgents(plan recover.Plan, warn func(format string, args ...any)) error {
	reboots := func(todo recover.InstancePlan) bool {
		return todo.Action == recover.ActionReboot || todo.Action == recover.ActionHardReboot
	}
	if !slices.ContainsFunc(plan.Instances, reboots) {
		return nil
	}
	for comm, name := range haAgents() {
		pids, err := procfs.Named(procfs.Dir, comm)
		if err != nil {
			return err
		}
		if len(pids) > 0 {
			warn("%s runs here (process %d) and may stop, start or evacuate an instance whose domain is destroyed: "+
				"stop it for the run, or set its host to on_maintenance in masakari", name, pids[0])
		}
	}
	for _, todo := range plan.Instances {
		// Octavia names its amphorae so (octavia/common/constants.py).
		if todo.Action == recover.ActionReboot && strings.HasPrefix(todo.Name, "amphora-") {
			warn("%s is an Octavia load balancer, and Octavia may replace it while it is down: "+
				"if so, `openstack loadbalancer failover` after the run repairs it", todo.Name)
		}
	}
	return nil
}
