package recover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// refuseByNova says why Nova's state of an instance forbids what a plan would do
// to it; empty when it does not, and offline.
func (p *planner) refuseByNova(ctx context.Context, i Instance, plan InstancePlan) (string, error) {
	server := i.server
	if p.cloud == nil || server == nil {
		return "", nil
	}
	if own := p.cloud.OwnProject(); own != "" && own == server.ProjectID && plan.Action != ActionHardReboot {
		return "the credentials are of its own project: their lock would be an owner's, which every member can undo in the middle; sign in to another project (an admin's), or work --offline", nil
	}
	if server.TaskState != "" && (plan.Action != ActionHardReboot || !rebooting(*server)) {
		return fmt.Sprintf("Nova has a task under way on it (%s): wait for it to end", server.TaskState), nil
	}
	reboots := plan.Action == ActionHardReboot || plan.Action == ActionReboot || plan.Action == ActionPublish && plan.Found != StateShutOff
	if reboots {
		if why := unrebootable(*server); why != "" {
			return why, nil
		}
	}
	if !reboots || p.options.NoReboot {
		return "", nil
	}
	if why := p.unaccepted(i); why != "" {
		return why, nil
	}
	return p.refuseByService(ctx, server.Host, plan.Action)
}

// unrebootable says why Nova would refuse a hard reboot for ever, and what works
// instead; empty when it would not: a hard reboot is allowed from ACTIVE, STOPPED,
// PAUSED, SUSPENDED and ERROR (nova/compute/api.py, _hard_reboot_instance).
func unrebootable(s Server) string {
	switch s.VMState {
	case VMActive, VMStopped, VMPaused, VMSuspended, VMError:
		return ""
	case VMRescued:
		return "it is in rescue mode (RESCUED), from which Nova can't hard reboot it, and leaving rescue mode would destroy it before its files are back: --mode live rescues it as it is"
	case VMResized:
		return "its resize waits for a confirmation (VERIFY_RESIZE), so Nova can't hard reboot it: --mode live rescues it as it is; or confirm the resize (openstack server resize confirm " + s.UUID + ", which does not touch the running guest) and run this again; do not revert it"
	default:
		return fmt.Sprintf("Nova has it as %s (%s), and hard reboots only active, stopped, paused, suspended or failed instances", s.VMState, s.Status)
	}
}

// unaccepted says what a hard reboot would lose that nobody has agreed to.
func (p *planner) unaccepted(i Instance) string {
	var losses []string
	for _, loss := range i.Losses {
		if !slices.Contains(p.options.AcceptLoss, loss) {
			losses = append(losses, loss)
		}
	}
	if len(losses) == 0 {
		return ""
	}
	what := strings.Join(losses, ",")
	return fmt.Sprintf("Nova's hard reboot would lose its %s: --accept-loss %s agrees to that; --offline starts it through libvirt, which keeps it", what, what)
}

// refuseByService says why a host's nova-compute could not carry a hard reboot out.
func (p *planner) refuseByService(ctx context.Context, host string, action Action) (string, error) {
	service, ok := p.services[host]
	if !ok {
		var err error
		service, err = p.cloud.ComputeService(ctx, host)
		if errors.Is(err, ErrForbidden) {
			p.warn("whether nova-compute is up on %s can't be seen (%v): if it is down, a hard reboot hangs", host, err)
			service, err = ComputeService{Known: true, Up: true}, nil
		}
		if err != nil {
			return "", err
		}
		p.services[host] = service
	}
	// A nova-compute that comes back may finish a reboot or a stop that was
	// interrupted (nova/compute/manager.py, _init_instance): files first.
	next := "do not start it yet: --no-reboot puts its files back now, then start nova-compute, then os-rescue reboot; or --offline starts it through libvirt"
	if action == ActionHardReboot {
		next = "start it first"
	}
	switch {
	case !service.Known:
		return fmt.Sprintf("Nova knows no nova-compute on %s: is that this host's name in Nova? (host in the configuration)", host), nil
	case !service.Up:
		return fmt.Sprintf("nova-compute is down on %s, and a hard reboot would hang: %s", host, next), nil
	}
	return "", nil
}

// warn notes what an operator should know before agreeing, once.
func (p *planner) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(p.warnings, text) {
		p.warnings = append(p.warnings, text)
	}
}

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
func (p *planner) warnOfAgents(plan Plan) error {
	if !slices.ContainsFunc(plan.Instances, func(i InstancePlan) bool { return i.Action == ActionReboot || i.Action == ActionHardReboot }) {
		return nil
	}
	for comm, name := range haAgents() {
		pids, err := processesNamed(procDir, comm)
		if err != nil {
			return err
		}
		if len(pids) > 0 {
			p.warn("%s runs here (process %d) and may stop, start or evacuate an instance whose domain is destroyed: stop it for the run, or set its host to on_maintenance in masakari", name, pids[0])
		}
	}
	for _, i := range plan.Instances {
		// The name that Octavia gives its amphorae (octavia/common/constants.py).
		if i.Action == ActionReboot && strings.HasPrefix(i.Name, "amphora-") {
			p.warn("%s is one of Octavia's load balancers, which may replace it while it is down: a failover afterwards (openstack loadbalancer failover) brings it back into order", i.Name)
		}
	}
	return nil
}
