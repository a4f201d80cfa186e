package recover

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

// planRequest is what makePlan needs.
type planRequest struct {
	Settings   Settings
	Hypervisor Hypervisor
	Cloud      Cloud // nil offline
	Command    Command
	Options    Options
	Chosen     selected
	// Unsettled maps the UUIDs of instances that an unfinished run began to work on to
	// the name of that run.
	Unsettled map[string]string
	Resuming  bool // a resume makes the plan anew
}

// makePlan plans a run for the chosen instances. It changes nothing. An instance that
// can't be worked on has ActionRefuse and the reason in its plan. An error stops the
// run as a whole: ErrUnusable (the root, the table of owners), ErrNoBackup, and those
// of Hypervisor and Cloud.
func makePlan(ctx context.Context, r planRequest) (Plan, error) {
	whole := Plan{
		Command:   r.Command,
		Mode:      r.Options.modeOf(r.Command),
		Host:      r.Settings.Host,
		Created:   time.Now().UTC(),
		Options:   r.Options,
		Instances: []InstancePlan{},
		Elsewhere: r.Chosen.elsewhere,
	}
	root, err := beneath.OpenRoot(r.Settings.Root)
	if err != nil {
		return whole, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	defer root.Close()
	if r.Command != CommandReboot {
		if _, err := resolveOwners(r.Settings, root); err != nil {
			return whole, err
		}
	}
	p := newPlanner(r, root)
	one, err := p.maker()
	if err != nil {
		return whole, err
	}
	for _, i := range r.Chosen.here {
		todo, err := one.plan(ctx, i)
		if err != nil {
			return whole, err
		}
		whole.Instances = append(whole.Instances, todo)
	}
	if err := p.nova.lastReboots(ctx, whole.Instances); err != nil {
		return whole, err
	}
	if err := fit(&whole, root, r.Settings); err != nil {
		return whole, err
	}
	err = warnOfAgents(whole, p.warn)
	whole.Warnings = p.warnings
	return whole, err
}

// maker plans single instances for one command.
type maker interface {
	plan(ctx context.Context, i Instance) (InstancePlan, error)
}

// planner is what the makers of all commands share.
type planner struct {
	planRequest
	root     *beneath.Root
	nova     *novaRules
	warnings []string
}

func newPlanner(r planRequest, root *beneath.Root) *planner {
	p := &planner{planRequest: r, root: root, warnings: r.Chosen.warnings}
	p.nova = &novaRules{cloud: r.Cloud, options: r.Options, services: map[string]ComputeService{}, warn: p.warn}
	return p
}

// maker returns the maker of the run's command.
func (p *planner) maker() (maker, error) {
	switch p.Command {
	case CommandBackup:
		return backupPlans{p}, nil
	case CommandReboot:
		return rebootPlans{p}, nil
	case CommandRestore:
		stored, err := readManifest(p.Options.BackupDir)
		return restorePlans{p, stored}, err
	default:
		return rescuePlans{p, &liveRules{mirrors: p.Hypervisor, options: p.Options}}, nil
	}
}

// warn adds a warning that the operator should read before agreeing, once.
func (p *planner) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(p.warnings, text) {
		p.warnings = append(p.warnings, text)
	}
}

// base returns the fields with which every plan of an instance begins.
func base(i Instance) InstancePlan {
	return InstancePlan{
		UUID:        i.UUID,
		Domain:      i.Domain,
		Name:        i.Name,
		ProjectID:   i.ProjectID,
		ProjectName: i.ProjectName,
		Verdict:     i.Verdict,
		Found:       i.State,
		Process:     i.process,
		DACLabel:    i.domain.DACLabel,
		ImageLabel:  i.domain.ImageLabel,
		Server:      i.server,
	}
}

// inHand says that an unfinished run began to work on an instance; empty when none did.
func (p *planner) inHand(uuid string) string {
	id := p.Unsettled[uuid]
	if id == "" {
		return ""
	}
	return fmt.Sprintf("run %s began to work on it and is not finished: os-rescue resume %s", id, id)
}
