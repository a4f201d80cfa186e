package recover

import (
	"slices"
	"strings"
)

// haAgents returns the command names, cut to the kernel's 15 characters, of what
// stops, starts or moves an instance when its domain ends: masakari-monitors
// (masakarimonitors/instancemonitor and hostmonitor).
func haAgents() map[string]string {
	return map[string]string{
		"masakari-instan": "masakari-instancemonitor",
		"masakari-hostmo": "masakari-hostmonitor",
	}
}

// warnOfAgents warns of what would act by itself on a destroyed domain.
func warnOfAgents(whole Plan, warn func(format string, args ...any)) error {
	if !slices.ContainsFunc(whole.Instances, func(i InstancePlan) bool { return i.Action == ActionReboot || i.Action == ActionHardReboot }) {
		return nil
	}
	for comm, name := range haAgents() {
		pids, err := processesNamed(procDir, comm)
		if err != nil {
			return err
		}
		if len(pids) > 0 {
			warn("%s runs here (process %d) and may stop, start or evacuate an instance whose domain is destroyed: stop it for the run, or set its host to on_maintenance in masakari", name, pids[0])
		}
	}
	for _, i := range whole.Instances {
		// The name that Octavia gives its amphorae (octavia/common/constants.py).
		if i.Action == ActionReboot && strings.HasPrefix(i.Name, "amphora-") {
			warn("%s is one of Octavia's load balancers, which may replace it while it is down: a failover afterwards (openstack loadbalancer failover) brings it back into order", i.Name)
		}
	}
	return nil
}
