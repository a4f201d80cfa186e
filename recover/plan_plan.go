package recover

import (
	"context"
	"fmt"
	"time"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

// plan plans the run for the chosen instances.
func (c *choice) plan(ctx context.Context, cloud Cloud, resuming bool) (Plan, error) {
	e := c.e
	plan := Plan{Command: c.command, Mode: string(modeOf(c.command, c.options)), Host: e.Settings.Host, Created: time.Now().UTC(), Options: c.options, Instances: []InstancePlan{},
		Elsewhere: c.selected.elsewhere}
	root, err := beneath.OpenRoot(e.Settings.Root)
	if err != nil {
		return plan, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	defer root.Close()
	p := &planner{settings: e.Settings, root: root, options: c.options, resuming: resuming, mirrors: e.Hypervisor, cloud: cloud, services: map[string]ComputeService{}, warnings: c.selected.warnings}
	if c.command != CommandReboot {
		if _, err := resolveOwners(e.Settings, root); err != nil {
			return plan, err
		}
	}
	if p.unsettled, err = e.unsettled(ctx); err != nil {
		return plan, err
	}
	planOne := p.rescue
	switch c.command {
	case CommandBackup:
		planOne = func(ctx context.Context, i Instance) (InstancePlan, error) { return p.backup(ctx, i), nil }
	case CommandReboot:
		planOne = p.reboot
	case CommandRestore:
		backup, err := readManifest(c.options.BackupDir)
		if err != nil {
			return plan, err
		}
		planOne = func(ctx context.Context, i Instance) (InstancePlan, error) {
			return p.restore(ctx, e.Hypervisor, backup, i)
		}
	}
	for _, i := range c.selected.here {
		ip, err := planOne(ctx, i)
		if err != nil {
			return plan, err
		}
		plan.Instances = append(plan.Instances, ip)
	}
	if err := p.lastReboots(ctx, plan.Instances); err != nil {
		return plan, err
	}
	if err := p.space(&plan); err != nil {
		return plan, err
	}
	err = p.warnOfAgents(plan)
	plan.Warnings = p.warnings
	return plan, err
}
