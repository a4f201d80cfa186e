package selection

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/scan"
)

// Choice finds the instances that a command selects. It changes nothing.
type Choice struct {
	settings recover.Settings
	scanner  *scan.Scanner
	command  recover.Command
	options  recover.Options

	Report   recover.Report // this host's scan, after Scan; empty when Scan did not scan
	Selected Selected       // after Choose
}

// New returns the choice of a command's instances, which Scan and then Choose make.
func New(settings recover.Settings, scanner *scan.Scanner, command recover.Command, options recover.Options) *Choice {
	return &Choice{settings: settings, scanner: scanner, command: command, options: options}
}

// Scan scans this host, unless the options bring scans of other hosts instead. Errors
// are those of scan.Scanner.Host.
func (c *Choice) Scan(ctx context.Context) (err error) {
	if !c.options.Reboot.Remote {
		c.Report, err = c.scanner.Host(ctx, c.options.Hints)
	}
	return err
}

// Choose finds the selected instances, after Scan; cloud is nil offline. recover.ErrUsage
// (also for a directory without a backup), recover.ErrNothingSelected, and the errors of
// Cloud.
func (c *Choice) Choose(ctx context.Context, cloud recover.Cloud) (err error) {
	switch {
	case c.command == recover.CommandRestore:
		c.Selected.Here, err = c.fromBackup(ctx)
		if err == nil && cloud != nil {
			err = c.askEach(ctx, cloud)
		}
	case cloud == nil:
		if h := c.options.Selection.Host; h != "" && h != c.settings.Host {
			return fmt.Errorf("%w: this host is %s, but --host is %s: offline, only this host's instances are known",
				recover.ErrNothingSelected, c.settings.Host, h)
		}
		c.Selected.Here, err = FromScan(c.options.Selection, c.Report)
	case c.options.Reboot.Remote:
		c.Selected, err = c.mapOnline(ctx, cloud, c.options.Reboot.Reports)
	default:
		c.Selected, err = c.mapOnline(ctx, cloud, []recover.Report{c.Report})
	}
	if err == nil && c.command == recover.CommandReboot {
		c.leaveOut()
	}
	if c.Report.GuardFault != "" {
		c.Selected.Warnings = append(c.Selected.Warnings, c.Report.GuardFault)
	}
	c.Selected.Bystanders = c.Report.Instances
	return err
}

// askEach asks Nova for each instance that is chosen already.
func (c *Choice) askEach(ctx context.Context, cloud recover.Cloud) error {
	m := &mapper{
		scanner: c.scanner,
		cloud:   cloud,
		options: c.options,
		reports: []recover.Report{{Host: c.settings.Host, Instances: c.Selected.Here}},
		seen:    map[string]bool{},
	}
	err := m.leftovers(ctx, func(recover.Instance) bool { return true })
	c.Selected = m.out
	return err
}

// leaveOut drops the instances whose status a reboot does not select. It keeps those
// that the operator named.
func (c *Choice) leaveOut() {
	states := c.options.Reboot.Statuses()
	n := len(c.Selected.Here)
	c.Selected.Here = slices.DeleteFunc(c.Selected.Here, func(i recover.Instance) bool {
		return len(c.options.Selection.Instances) == 0 && i.Server != nil && !Meant(*i.Server, states)
	})
	if n -= len(c.Selected.Here); n > 0 {
		c.Selected.Warnings = append(c.Selected.Warnings,
			fmt.Sprintf("%d more instances are not %s and are left out (--state names other statuses)", n, strings.Join(states, " or ")))
	}
}

// Meant is true when a reboot run with those statuses (RebootOptions.Statuses) is about
// the instance: it has one of them, or Nova is rebooting it, and the run waits for that.
func Meant(s recover.Server, statuses []string) bool {
	return slices.Contains(statuses, s.Status) || recover.IsRebooting(s)
}

// fromBackup returns the selected instances of a backup as the scan found them. One that
// libvirt no longer knows counts as shut off; what is still held of it is looked up by the
// paths in the backup.
func (c *Choice) fromBackup(ctx context.Context) ([]recover.Instance, error) {
	m, err := manifest.Read(c.options.BackupDir, c.options.AcceptOwner)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", recover.ErrUsage, err)
	}
	known := recover.Report{Host: c.Report.Host}
	for _, entry := range m.Instances {
		n := slices.IndexFunc(c.Report.Instances, func(i recover.Instance) bool { return i.UUID == entry.UUID })
		if n >= 0 {
			known.Instances = append(known.Instances, c.Report.Instances[n])
			continue
		}
		known.Instances = append(known.Instances, recover.Instance{
			UUID:        entry.UUID,
			Domain:      entry.Domain,
			Name:        entry.Name,
			ProjectID:   entry.ProjectID,
			ProjectName: entry.ProjectName,
			State:       recover.StateShutOff,
			Verdict:     recover.VerdictLost,
			Files:       []recover.File{},
			Reasons:     []string{"libvirt no longer knows its domain"},
			NoDomain:    true,
		})
	}
	chosen, err := FromScan(c.options.Selection, known)
	if err != nil {
		return nil, err
	}
	for n := range chosen {
		i := &chosen[n]
		if !i.NoDomain || len(i.Files) > 0 {
			continue
		}
		entry, _ := m.Find(i.UUID)
		if i.Files, err = c.scanner.Undefined(ctx, i.UUID, entry.Named(), c.options.Hints); err != nil {
			return nil, err
		}
	}
	return chosen, nil
}
