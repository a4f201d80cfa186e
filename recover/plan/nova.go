package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/os-rescue/os-rescue/recover"
)

// novaRules decide what the state of an instance in Nova allows.
type novaRules struct {
	cloud    recover.Cloud // nil offline
	options  recover.Options
	services map[string]recover.ComputeService // by host
	warn     func(format string, args ...any)
	// computeID says what may keep a nova-compute that is down from starting; may be empty.
	computeID string
}

// refuse says why the state of an instance in Nova forbids its plan; empty when it does
// not, and offline. The errors are those of Cloud.
func (r *novaRules) refuse(ctx context.Context, i recover.Instance, todo recover.InstancePlan) (string, error) {
	server := i.Server
	if r.cloud == nil || server == nil {
		return "", nil
	}
	if why := recover.Deletion(*server); why != "" {
		return why, nil
	}
	if own := r.cloud.OwnProject(); own != "" && own == server.ProjectID && todo.Action != recover.ActionHardReboot {
		return "the credentials belong to the instance's own project: every member of it could undo their lock in the middle of the run; " +
			"sign in to another project (an admin's), or use --offline", nil
	}
	if server.TaskState != "" && (todo.Action != recover.ActionHardReboot || !recover.IsRebooting(*server)) {
		return fmt.Sprintf("Nova has a task under way on it (%s): wait for it to end", server.TaskState), nil
	}
	reboots := todo.Action == recover.ActionHardReboot || todo.Action == recover.ActionReboot ||
		todo.Action == recover.ActionPublish && todo.Found != recover.StateShutOff
	if reboots {
		if why := unrebootable(*server); why != "" {
			return why, nil
		}
	}
	if !reboots || r.options.NoReboot {
		return "", nil
	}
	if why := r.unaccepted(i); why != "" {
		return why, nil
	}
	return r.refuseByService(ctx, server.Host, todo.Action)
}

// unrebootable says why Nova would always refuse a hard reboot, and what works instead;
// empty when it would not. Nova allows a hard reboot from ACTIVE, STOPPED, PAUSED,
// SUSPENDED and ERROR (nova/compute/api.py, _hard_reboot_instance).
func unrebootable(s recover.Server) string {
	switch s.VMState {
	case recover.VMActive, recover.VMStopped, recover.VMPaused, recover.VMSuspended, recover.VMError:
		return ""
	case recover.VMRescued:
		return "it is in rescue mode (RESCUED), so Nova can't hard reboot it, and leaving rescue mode would destroy it " +
			"before its files are back: --mode live rescues it as it is"
	case recover.VMResized:
		return "its resize waits for a confirmation (VERIFY_RESIZE), so Nova can't hard reboot it: --mode live rescues it as it is; " +
			"or confirm the resize (openstack server resize confirm " + s.UUID + ", which does not touch the running guest) " +
			"and run this again; do not revert it"
	default:
		return fmt.Sprintf("Nova has it as %s (%s), and hard reboots only active, stopped, paused, suspended or failed instances",
			s.VMState, s.Status)
	}
}

// unaccepted names what a hard reboot would lose without the operator's consent; empty
// when there is nothing.
func (r *novaRules) unaccepted(i recover.Instance) string {
	var losses []string
	for _, loss := range i.Losses {
		if !slices.Contains(r.options.AcceptLoss, loss) {
			losses = append(losses, loss)
		}
	}
	if len(losses) == 0 {
		return ""
	}
	names := strings.Join(losses, ",")
	return fmt.Sprintf("Nova's hard reboot would lose its %s: --accept-loss %s agrees to that; "+
		"--offline starts it through libvirt, which keeps it", names, names)
}

// refuseByService says why a host's nova-compute could not carry out a hard reboot;
// empty when it could.
func (r *novaRules) refuseByService(ctx context.Context, host string, action recover.Action) (string, error) {
	service, ok := r.services[host]
	if !ok {
		var err error
		service, err = r.cloud.ComputeService(ctx, host)
		if errors.Is(err, recover.ErrForbidden) {
			r.warn("os-rescue can't see whether nova-compute is up on %s (%v): if it is down, a hard reboot hangs", host, err)
			service, err = recover.ComputeService{Known: true, Up: true}, nil
		}
		if err != nil {
			return "", err
		}
		r.services[host] = service
	}
	// A nova-compute that comes back may finish a reboot or a stop that was
	// interrupted (nova/compute/manager.py, _init_instance): files first.
	next := "do not start nova-compute yet: put the files back now with --no-reboot, then start nova-compute, then run os-rescue reboot; " +
		"or use --offline, which starts the instance through libvirt"
	if action == recover.ActionHardReboot {
		next = "start nova-compute first"
	}
	switch {
	case !service.Known:
		return fmt.Sprintf("Nova knows no nova-compute on %s: if Nova knows this host by another name, set host in the configuration", host), nil
	case !service.Up && r.computeID != "":
		return fmt.Sprintf("nova-compute is down on %s, and a hard reboot would hang: %s. Of nova-compute itself: %s",
			host, next, r.computeID), nil
	case !service.Up:
		return fmt.Sprintf("nova-compute is down on %s, and a hard reboot would hang: %s", host, next), nil
	}
	return "", nil
}

// lastReboots notes the last reboot that Nova has on record for each instance of another
// host: any later one was made by this run, or by somebody else meanwhile.
func (r *novaRules) lastReboots(ctx context.Context, plans []recover.InstancePlan) error {
	if !r.options.Reboot.Remote {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(recover.NovaParallel)
	for n := range plans {
		if todo := &plans[n]; todo.Action == recover.ActionHardReboot {
			g.Go(func() (err error) {
				if todo.LastReboot, err = r.cloud.LastReboot(ctx, todo.UUID); err != nil {
					err = fmt.Errorf("the last reboot of %s: %w", todo.UUID, err)
				}
				return err
			})
		}
	}
	return g.Wait()
}
