package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/owners"
	"github.com/os-rescue/os-rescue/recover/selection"
	"github.com/os-rescue/os-rescue/recover/space"
)

// Request is what Make makes a plan from.
type Request struct {
	Settings   recover.Settings   // of this host
	Hypervisor recover.Hypervisor // asked for counters and what it can mirror
	Cloud      recover.Cloud      // nil offline
	Command    recover.Command    // of the run
	Options    recover.Options    // of the run
	Chosen     selection.Selected // the instances that the run is about
	// Unsettled maps the UUIDs of instances that an unfinished run began to work on to
	// the name of that run.
	Unsettled map[string]string
	Resuming  bool // a resume makes the plan anew
	// ComputeID says what is wrong with Nova's compute_id; nil for nothing.
	ComputeID *recover.ComputeIDFault
}

// Make plans a run for the chosen instances. It changes nothing. An instance that
// can't be worked on has ActionRefuse and the reason in its plan. An error stops the run
// as a whole: recover.ErrUnusable (the root, the table of owners), manifest.ErrNoBackup,
// and those of Hypervisor and Cloud.
func Make(ctx context.Context, r Request) (recover.Plan, error) {
	plan := recover.Plan{
		Command:   r.Command,
		Mode:      r.Options.ModeOf(r.Command),
		Host:      r.Settings.Host,
		Created:   time.Now().UTC(),
		Options:   r.Options,
		Instances: []recover.InstancePlan{},
		Elsewhere: r.Chosen.Elsewhere,
	}
	root, err := beneath.OpenRoot(r.Settings.Root)
	if err != nil {
		return plan, fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	defer root.Close()
	p := newPlanner(r, root)
	if r.Command.Publishes() {
		table, err := owners.Resolve(r.Settings, root)
		if err != nil {
			return plan, err
		}
		p.directories = &directories{table: table, root: root, named: map[string]bool{}}
	}
	warnOfHolders(r.Options.Holders, p.warn)
	p.warnOfComputeID()
	plan.ComputeID = r.ComputeID
	m, err := p.maker()
	if err != nil {
		return plan, err
	}
	for _, i := range r.Chosen.Here {
		todo, err := m.plan(ctx, i)
		if err != nil {
			return plan, err
		}
		p.keepStrays(i, &todo)
		plan.Instances = append(plan.Instances, todo)
	}
	if err := p.nova.lastReboots(ctx, plan.Instances); err != nil {
		return plan, err
	}
	if err := space.Fit(&plan, root, r.Settings); err != nil {
		return plan, err
	}
	err = warnOfAgents(plan, p.warn)
	plan.Warnings = p.warnings
	return plan, err
}

// maker plans single instances for one command.
type maker interface {
	plan(ctx context.Context, i recover.Instance) (recover.InstancePlan, error)
}

// planner is what the makers of all commands share.
type planner struct {
	Request
	root        *beneath.Root
	directories *directories // nil where no file is given to anybody
	nova        *novaRules
	names       names
	warnings    []string
}

func newPlanner(r Request, root *beneath.Root) *planner {
	p := &planner{Request: r, root: root, warnings: r.Chosen.Warnings}
	p.names = names{root, r.Settings.InstancesPath, r.Options.ReplaceExisting}
	p.nova = &novaRules{
		cloud:     r.Cloud,
		options:   r.Options,
		services:  map[string]recover.ComputeService{},
		warn:      p.warn,
		computeID: p.computeIDHint(),
	}
	return p
}

// warnOfComputeID says what is wrong with Nova's compute_id, and what the run does about it.
func (p *planner) warnOfComputeID() {
	fault := p.ComputeID
	switch {
	case fault == nil:
	case !fault.Missing():
		p.warn("%s", fault.Sentence())
	case p.Command.Publishes():
		p.warn("%s. The run puts it back from the guard's copy", fault.Sentence())
	default:
		p.warn("%s. A rescue puts it back from the guard's copy", fault.Sentence())
	}
}

// computeIDHint says what may keep a nova-compute that is down from starting; empty where its
// compute_id stands in its place.
func (p *planner) computeIDHint() string {
	if len(p.Settings.ComputeIDPaths) == 0 {
		return ""
	}
	if p.ComputeID != nil {
		return p.ComputeID.Sentence()
	}
	if !p.Options.Reboot.Remote {
		for _, path := range p.Settings.ComputeIDPaths {
			if _, err := p.root.Lstat(path); err == nil {
				return ""
			}
		}
	}
	return recover.ComputeIDHint(p.Settings.ComputeIDPaths[0])
}

// maker returns the maker of the run's command.
func (p *planner) maker() (maker, error) {
	if dir := p.Options.BackupDir; dir != "" && p.Command != recover.CommandRestore {
		if err := manifest.Trusted(dir, p.Options.AcceptOwner); err != nil {
			return nil, fmt.Errorf("%w: %w", recover.ErrUsage, err)
		}
	}
	switch p.Command {
	case recover.CommandBackup:
		return backupPlans{p}, nil
	case recover.CommandReboot:
		return rebootPlans{p}, nil
	case recover.CommandRestore:
		stored, err := manifest.Read(p.Options.BackupDir, p.Options.AcceptOwner)
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

// warnNoDomain says what is to be done about an instance whose files are whole and whose
// domain is gone: nothing of a rescue's, and no backup is needed.
func (p *planner) warnNoDomain(i recover.Instance) {
	if i.NoDomain && i.Server != nil {
		p.warn("%s (%s) has all its files and no domain: nothing of it is lost; %s", i.Domain, i.UUID, strings.Join(i.Possible, "; "))
	}
}

// keepStrays notes what a run must not let go with the files that it brings back.
func (p *planner) keepStrays(i recover.Instance, todo *recover.InstancePlan) {
	for _, f := range i.Superseded {
		todo.Strays = append(todo.Strays, f.Identity().Key())
	}
	if len(i.Superseded) > 0 && todo.Action != recover.ActionRefuse {
		p.warn("%s: %s; %s", i.Domain, strings.Join(i.AboutSuperseded(), "; "), i.CureOfSuperseded())
	}
	if i.PID == 0 || todo.Action != recover.ActionReboot && todo.Action != recover.ActionPublish {
		return
	}
	for _, f := range i.Strays() {
		todo.Strays = append(todo.Strays, f.Identity().Key())
		p.warn("the QEMU of %s has a deleted file open that no definition names (%s): it is not brought back, and the keeper goes on "+
			"holding it after the run", i.Domain, f.Path)
	}
}

// base returns the fields with which every plan of an instance begins.
func base(i recover.Instance) recover.InstancePlan {
	return recover.InstancePlan{
		UUID:        i.UUID,
		Domain:      i.Domain,
		Name:        i.Name,
		ProjectID:   i.ProjectID,
		ProjectName: i.ProjectName,
		Verdict:     i.Verdict,
		Found:       i.State,
		Process:     i.Process,
		DACLabel:    i.Definition.DACLabel,
		ImageLabel:  i.Definition.ImageLabel,
		Server:      i.Server,
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
