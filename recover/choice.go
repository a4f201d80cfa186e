package recover

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

// choice finds out what a run is about, and plans it. It changes nothing.
type choice struct {
	e       *Engine
	command Command
	options Options

	report   Report // this host's scan
	selected selected
}

// signIn connects to Nova for a run that asks it; nil for all others.
func (e *Engine) signIn(ctx context.Context, command Command, o Options) (Cloud, error) {
	if command == CommandBackup || o.Offline || e.SignIn == nil {
		if command == CommandReboot {
			return nil, fmt.Errorf("%w: a hard reboot is made by Nova: it can't be done offline", ErrUsage)
		}
		return nil, nil
	}
	return e.SignIn(ctx)
}

// scan looks at this host, unless the scans of others are to do.
func (c *choice) scan(ctx context.Context) (err error) {
	if !c.options.Reboot.Remote {
		c.report, err = c.e.scan(ctx, c.options.Holders)
	}
	return err
}

// choose fills in what the selection means; cloud is nil offline.
func (c *choice) choose(ctx context.Context, cloud Cloud) (err error) {
	switch {
	case c.command == CommandRestore:
		c.selected.here, err = chooseFromBackup(c.options, c.report)
		if err == nil && cloud != nil {
			err = c.askEach(ctx, cloud)
		}
	case cloud == nil:
		if h := c.options.Selection.Host; h != "" && h != c.e.Settings.Host {
			return fmt.Errorf("%w: this host is %s, and --host is %s: offline only this host's instances are known", ErrNothingSelected, c.e.Settings.Host, h)
		}
		c.selected.here, err = c.options.Selection.apply(c.report)
	case c.options.Reboot.Remote:
		c.selected, err = c.e.mapOnline(ctx, cloud, c.options, c.options.Reboot.Reports)
	default:
		c.selected, err = c.e.mapOnline(ctx, cloud, c.options, []Report{c.report})
	}
	if err == nil && c.command == CommandReboot {
		c.leaveOut()
	}
	return err
}

// askEach joins what Nova says with instances that are chosen already.
func (c *choice) askEach(ctx context.Context, cloud Cloud) error {
	m := &mapper{e: c.e, cloud: cloud, options: c.options, seen: map[string]bool{},
		scans: []Report{{Host: c.e.Settings.Host, Instances: c.selected.here}}}
	err := m.leftovers(ctx, func(Instance) bool { return true })
	c.selected = m.out
	return err
}

// leaveOut drops the instances whose status is not meant by a reboot, but for
// those that the operator named.
func (c *choice) leaveOut() {
	states := c.options.Reboot.states()
	n := len(c.selected.here)
	c.selected.here = slices.DeleteFunc(c.selected.here, func(i Instance) bool {
		return len(c.options.Selection.Instances) == 0 && i.server != nil && !meant(*i.server, states)
	})
	if n -= len(c.selected.here); n > 0 {
		c.selected.warnings = append(c.selected.warnings, fmt.Sprintf("%d more instances are not %s and are left out (--state names others)", n, strings.Join(states, " or ")))
	}
}

// modeOf is a run's mode; only a rescue has another than reboot.
func modeOf(command Command, o Options) Mode {
	if command != CommandRescue {
		return ModeReboot
	}
	return cmp.Or(o.Mode, ModeReboot)
}

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
