package recover

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// choice finds out which instances a command is about. It changes nothing.
type choice struct {
	settings Settings
	scanner  *scanner
	command  Command
	options  Options

	report   Report   // this host's scan, once it was made
	selected selected // once it was chosen
}

// newChoice begins the choice of the instances of a command.
func newChoice(settings Settings, scanner *scanner, command Command, options Options) *choice {
	return &choice{settings: settings, scanner: scanner, command: command, options: options}
}

// scan looks at this host, unless the scans of others are to do.
func (c *choice) scan(ctx context.Context) (err error) {
	if !c.options.Reboot.Remote {
		c.report, err = c.scanner.host(ctx, c.options.Holders)
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
		if h := c.options.Selection.Host; h != "" && h != c.settings.Host {
			return fmt.Errorf("%w: this host is %s, and --host is %s: offline only this host's instances are known", ErrNothingSelected, c.settings.Host, h)
		}
		c.selected.here, err = fromScan(c.options.Selection, c.report)
	case c.options.Reboot.Remote:
		c.selected, err = c.mapOnline(ctx, cloud, c.options.Reboot.Reports)
	default:
		c.selected, err = c.mapOnline(ctx, cloud, []Report{c.report})
	}
	if err == nil && c.command == CommandReboot {
		c.leaveOut()
	}
	return err
}

// askEach joins what Nova says with instances that are chosen already.
func (c *choice) askEach(ctx context.Context, cloud Cloud) error {
	m := &mapper{scanner: c.scanner, cloud: cloud, options: c.options, seen: map[string]bool{},
		scans: []Report{{Host: c.settings.Host, Instances: c.selected.here}}}
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

// meant is true for an instance of one of the statuses, and for one that is being
// rebooted: that one is waited for.
func meant(s Server, states []string) bool {
	return slices.Contains(states, s.Status) || rebooting(s)
}

// chooseFromBackup returns the selected instances of a backup, as the scan has
// them; one that libvirt has forgotten is off.
func chooseFromBackup(o Options, report Report) ([]Instance, error) {
	m, err := readManifest(o.BackupDir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	known := Report{Host: report.Host}
	for _, entry := range m.Instances {
		n := slices.IndexFunc(report.Instances, func(i Instance) bool { return i.UUID == entry.UUID })
		if n >= 0 {
			known.Instances = append(known.Instances, report.Instances[n])
			continue
		}
		known.Instances = append(known.Instances, Instance{UUID: entry.UUID, Domain: entry.Domain, Name: entry.Name, ProjectID: entry.ProjectID,
			ProjectName: entry.ProjectName, State: StateShutOff, Verdict: VerdictLost, Files: []File{}, Reasons: []string{"libvirt does not know the domain any more"}})
	}
	return fromScan(o.Selection, known)
}
