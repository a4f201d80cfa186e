package recover

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// choice finds the instances that a command selects. It changes nothing.
type choice struct {
	settings Settings
	scanner  *scanner
	command  Command
	options  Options

	report   Report   // this host's scan, after scan
	selected selected // after choose
}

// newChoice returns the choice of a command's instances; scan and choose make it.
func newChoice(settings Settings, scanner *scanner, command Command, options Options) *choice {
	return &choice{settings: settings, scanner: scanner, command: command, options: options}
}

// scan scans this host, unless the options bring scans of other hosts instead. Errors
// are those of scanner.host.
func (c *choice) scan(ctx context.Context) (err error) {
	if !c.options.Reboot.Remote {
		c.report, err = c.scanner.host(ctx, c.options.Holders)
	}
	return err
}

// choose finds the selected instances, after scan; cloud is nil offline. ErrUsage,
// ErrNothingSelected, and the errors of Cloud.
func (c *choice) choose(ctx context.Context, cloud Cloud) (err error) {
	switch {
	case c.command == CommandRestore:
		c.selected.here, err = chooseFromBackup(c.options, c.report)
		if err == nil && cloud != nil {
			err = c.askEach(ctx, cloud)
		}
	case cloud == nil:
		if h := c.options.Selection.Host; h != "" && h != c.settings.Host {
			return fmt.Errorf("%w: this host is %s, but --host is %s: offline, only this host's instances are known",
				ErrNothingSelected, c.settings.Host, h)
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

// askEach asks Nova for each instance that is chosen already.
func (c *choice) askEach(ctx context.Context, cloud Cloud) error {
	m := &mapper{
		scanner: c.scanner,
		cloud:   cloud,
		options: c.options,
		reports: []Report{{Host: c.settings.Host, Instances: c.selected.here}},
		seen:    map[string]bool{},
	}
	err := m.leftovers(ctx, func(Instance) bool { return true })
	c.selected = m.out
	return err
}

// leaveOut drops the instances whose status a reboot does not select. It keeps those
// that the operator named.
func (c *choice) leaveOut() {
	states := c.options.Reboot.states()
	n := len(c.selected.here)
	c.selected.here = slices.DeleteFunc(c.selected.here, func(i Instance) bool {
		return len(c.options.Selection.Instances) == 0 && i.server != nil && !meant(*i.server, states)
	})
	if n -= len(c.selected.here); n > 0 {
		c.selected.warnings = append(c.selected.warnings,
			fmt.Sprintf("%d more instances are not %s and are left out (--state names other statuses)", n, strings.Join(states, " or ")))
	}
}

// meant is true for an instance with one of the statuses, and for one that Nova is
// rebooting: a reboot run waits for that one.
func meant(s Server, states []string) bool {
	return slices.Contains(states, s.Status) || rebooting(s)
}

// chooseFromBackup returns the selected instances of a backup as the scan found them.
// One that libvirt no longer knows counts as shut off.
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
		known.Instances = append(known.Instances, Instance{
			UUID:        entry.UUID,
			Domain:      entry.Domain,
			Name:        entry.Name,
			ProjectID:   entry.ProjectID,
			ProjectName: entry.ProjectName,
			State:       StateShutOff,
			Verdict:     VerdictLost,
			Files:       []File{},
			Reasons:     []string{"libvirt no longer knows its domain"},
		})
	}
	return fromScan(o.Selection, known)
}
