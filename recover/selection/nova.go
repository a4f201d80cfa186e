package selection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/scan"
)

// Selected are the selected instances: those to plan a run for, and those of other
// hosts, which the run leaves alone.
type Selected struct {
	Here       []recover.Instance  // as scanned; Disagreement is set in those to leave alone
	Elsewhere  []recover.Elsewhere // of other hosts, of no host, or of a cell that is down
	Bystanders []recover.Instance  // of this host's scan, those in Here among them: nothing may be taken from them
	Warnings   []string            // what the operator should know, one sentence each
}

// mapper joins what Nova says about instances with the scans of their hosts.
type mapper struct {
	scanner *scan.Scanner
	cloud   recover.Cloud
	options recover.Options
	reports []recover.Report // scans, each of another host
	out     Selected
	seen    map[string]bool // by UUID
}

// mapOnline returns the instances that Nova has for the selection, each joined with
// its scan. An instance about which Nova and libvirt disagree is shown and left alone.
// The reports are this host's own scan, or instead of it those of other hosts.
func (c *Choice) mapOnline(ctx context.Context, cloud recover.Cloud, reports []recover.Report) (Selected, error) {
	m := &mapper{scanner: c.scanner, cloud: cloud, options: c.options, reports: reports, seen: map[string]bool{}}
	var err error
	switch s := c.options.Selection; {
	case s.All:
		err = m.all(ctx)
	case s.Project != "":
		err = m.project(ctx)
	default:
		err = m.instances(ctx)
	}
	slices.SortFunc(m.out.Here, func(a, b recover.Instance) int { return strings.Compare(a.Domain, b.Domain) })
	return m.out, err
}

// hosts returns the compute hosts whose instances --all selects.
func (m *mapper) hosts() []string {
	if h := m.options.Selection.Host; h != "" {
		return []string{h}
	}
	var hosts []string
	for _, r := range m.reports {
		hosts = append(hosts, r.Host)
	}
	return hosts
}

func (m *mapper) all(ctx context.Context) error {
	hosts := m.hosts()
	servers, err := m.cloud.Servers(ctx, recover.ServerFilter{Hosts: hosts})
	if err != nil {
		return fmt.Errorf("list the instances of %s: %w", strings.Join(hosts, ", "), err)
	}
	if err := m.addAll(ctx, servers); err != nil {
		return err
	}
	return m.leftovers(ctx, func(i recover.Instance) bool {
		return i.Definition.Nova != nil || i.Verdict != recover.VerdictIntact && i.Verdict != recover.VerdictUnaffected
	})
}

func (m *mapper) project(ctx context.Context) error {
	s := m.options.Selection
	id, err := m.cloud.Project(ctx, s.Project, s.ProjectDomain)
	if errors.Is(err, recover.ErrForbidden) {
		// The domains of this host may still tell which project it is.
		domains, lerr := projectIn(m.joined(), s.Project)
		if lerr != nil {
			return fmt.Errorf("%w (or give the project's ID, or --instance)", errors.Join(err, lerr))
		}
		if id = domains[0].ProjectID; id == "" { // an empty filter would list every project's
			return fmt.Errorf("%w (and its domains here do not contain its ID: give --instance)", err)
		}
	} else if err != nil {
		return fmt.Errorf("project %s: %w", s.Project, err)
	}
	filter := recover.ServerFilter{ProjectID: id}
	if s.Host != "" {
		filter.Hosts = []string{s.Host}
	}
	servers, err := m.cloud.Servers(ctx, filter)
	if err != nil {
		return fmt.Errorf("list the instances of project %s: %w", s.Project, err)
	}
	if err := m.addAll(ctx, servers); err != nil {
		return err
	}
	if err := m.leftovers(ctx, func(i recover.Instance) bool { return i.ProjectID == id }); err != nil {
		return err
	}
	if len(m.seen) == 0 {
		return fmt.Errorf("%w: project %s has no instances", recover.ErrNothingSelected, s.Project)
	}
	return nil
}

func (m *mapper) instances(ctx context.Context) error {
	scanned := m.joined().Instances
	for _, want := range m.options.Selection.Instances {
		uuid := strings.ToLower(want)
		if n := slices.IndexFunc(scanned, func(i recover.Instance) bool { return i.Domain == want }); n >= 0 {
			uuid = scanned[n].UUID
		}
		if m.seen[uuid] {
			continue
		}
		server, err := m.cloud.Server(ctx, uuid)
		i, _ := m.scanned(uuid)
		switch {
		case err == nil && m.leftOut(server.Host):
			return fmt.Errorf("%w: Nova has %s on host %q, but --host is %s",
				recover.ErrNothingSelected, want, server.Host, m.options.Selection.Host)
		case err == nil:
			if err := m.add(ctx, server, true); err != nil {
				return err
			}
		case errors.Is(err, recover.ErrNoInstance) && i == nil:
			return fmt.Errorf("%w: %s: %w", recover.ErrNothingSelected, want, err)
		default:
			if err := m.askedAlone(uuid, recover.Server{}, err); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *mapper) addAll(ctx context.Context, servers []recover.Server) error {
	for _, server := range servers {
		if err := m.add(ctx, server, false); err != nil {
			return err
		}
	}
	return nil
}

// leftovers asks Nova one by one for the scanned domains that are selected but were in
// none of its lists: deleted, moved away, or in a cell that is down.
func (m *mapper) leftovers(ctx context.Context, meant func(recover.Instance) bool) error {
	for _, i := range m.joined().Instances {
		if _, host := m.scanned(i.UUID); m.seen[i.UUID] || !meant(i) || m.leftOut(host) {
			continue
		}
		server, err := m.cloud.Server(ctx, i.UUID)
		if err == nil && i.NoDomain && Disagreement(i, m.reports[0].Host, server) == "" {
			// That libvirt does not know it says nothing about its files.
			if now, err := m.scanner.NovaOnly(ctx, server, m.options.Hints); err != nil {
				return err
			} else if here, _ := m.scanned(i.UUID); now.Verdict == recover.VerdictIntact {
				*here = now
			}
		}
		if err := m.askedAlone(i.UUID, server, err); err != nil {
			return err
		}
	}
	return nil
}

// leftOut is true for a host other than that of --host.
func (m *mapper) leftOut(host string) bool {
	h := m.options.Selection.Host
	return h != "" && h != host
}

// askedAlone takes in a scanned domain with the answer that Nova gave for it alone.
func (m *mapper) askedAlone(uuid string, server recover.Server, err error) error {
	i, host := m.scanned(uuid)
	m.seen[uuid] = true
	switch {
	case err == nil:
		m.merge(*i, host, server)
	case errors.Is(err, recover.ErrNoInstance):
		m.disagree(*i, "Nova knows no such instance: it was deleted while its domain lived on, or the domain is not Nova's; "+
			"its data is only in this domain")
	case i != nil && (errors.Is(err, recover.ErrCloudUnavailable) || errors.Is(err, recover.ErrForbidden)):
		// The first may mean a cell that is down; the second, a user who is no admin
		// and an instance of another project. Neither means that it was deleted.
		m.disagree(*i, fmt.Sprintf("Nova does not say on which host it is now: %v", err))
	default:
		return err
	}
	return nil
}

// joined returns the instances of all scans in one report.
func (m *mapper) joined() recover.Report {
	var joined recover.Report
	for _, r := range m.reports {
		joined.Instances = append(joined.Instances, r.Instances...)
	}
	return joined
}

// scanned returns an instance as a scan found it, and the host of that scan; nil
// when no scan has it.
func (m *mapper) scanned(uuid string) (i *recover.Instance, host string) {
	for _, r := range m.reports {
		for n := range r.Instances {
			if r.Instances[n].UUID == uuid {
				return &r.Instances[n], r.Host
			}
		}
	}
	return nil, ""
}

// add takes in one of Nova's instances; named is true when the operator named it.
func (m *mapper) add(ctx context.Context, server recover.Server, named bool) error {
	if m.seen[server.UUID] {
		return nil
	}
	m.seen[server.UUID] = true
	if i, host := m.scanned(server.UUID); i != nil {
		m.merge(*i, host, server)
		return nil
	}
	ofThese := slices.ContainsFunc(m.reports, func(r recover.Report) bool { return r.Host == server.Host })
	if !server.Unknown && ofThese {
		return m.absent(ctx, server)
	}
	where := recover.Elsewhere{
		UUID:    server.UUID,
		Name:    server.Name,
		Host:    server.Host,
		Status:  server.Status,
		Unknown: server.Unknown,
	}
	if !named {
		m.out.Elsewhere = append(m.out.Elsewhere, where)
		return nil
	}
	m.disagree(unscanned(server), where.Sentence())
	return nil
}

// unscanned returns an instance of which only Nova tells.
func unscanned(server recover.Server) recover.Instance {
	return recover.Instance{
		UUID:      server.UUID,
		Name:      server.Name,
		Domain:    server.Domain,
		ProjectID: server.ProjectID,
		State:     recover.StateShutOff,
		Verdict:   recover.VerdictUnknown,
	}
}

// merge takes in an instance whose domain was found on a host.
func (m *mapper) merge(i recover.Instance, host string, server recover.Server) {
	i.Server = &server
	if why := Disagreement(i, host, server); why != "" {
		m.disagree(i, why)
		return
	}
	if note := otherName(i, server); note != "" {
		m.out.Warnings = append(m.out.Warnings, note)
	}
	if i.Name == "" {
		i.Name = server.Name
	}
	if i.ProjectID == "" {
		i.ProjectID = server.ProjectID
	}
	m.out.Here = append(m.out.Here, i)
}

// Disagreement says what Nova and the scan of a host disagree about, in a sentence for the
// operator; empty when they agree.
func Disagreement(i recover.Instance, host string, server recover.Server) string {
	switch {
	case server.Unknown:
		return "its cell does not answer, so its host and its state are unknown"
	case server.Host != host:
		where := "no host"
		if server.Host != "" {
			where = "host " + server.Host
		}
		return fmt.Sprintf("Nova has it on %s, but its domain was found on %s: it was evacuated or migrated, "+
			"and another host may use the files of this leftover domain by now "+
			"(if the name of this host is wrong, set host in the configuration)", where, host)
	}
	return ""
}

// otherName says that Nova calls an instance's domain by another name than libvirt; empty
// when it does not. It is the same instance all the same: Nova finds a domain by its UUID
// (nova/virt/libvirt/host.py, get_domain), and names it anew from instance_name_template
// when it defines it.
func otherName(i recover.Instance, server recover.Server) string {
	if server.Domain == "" || server.Domain == i.Domain {
		return ""
	}
	return fmt.Sprintf("Nova calls the domain of %s %s, and libvirt has that UUID under %s: it is the same instance, "+
		"and gets Nova's name at its next hard reboot", i.UUID, server.Domain, i.Domain)
}

// disagree takes in an instance that is shown and left alone.
func (m *mapper) disagree(i recover.Instance, why string) {
	i.Disagreement = why
	m.out.Here = append(m.out.Here, i)
}

// absent takes in an instance that Nova has on a scanned host, but whose domain that
// host's libvirt does not know.
func (m *mapper) absent(ctx context.Context, server recover.Server) error {
	i := unscanned(server)
	i.Server = &server
	if server.TaskState != "" {
		m.disagree(i, fmt.Sprintf("Nova has a task under way on it (%s), and libvirt does not know its domain (yet): wait for the task to end",
			server.TaskState))
		return nil
	}
	if m.options.Reboot.Remote {
		m.disagree(i, fmt.Sprintf("Nova has it on %s as %s, but the scan of that host does not contain its domain",
			server.Host, server.Status))
		return nil
	}
	i, err := m.scanner.NovaOnly(ctx, server, m.options.Hints)
	if err != nil {
		return err
	}
	zerolog.Ctx(ctx).Debug().Str("instance", server.UUID).Str("verdict", string(i.Verdict)).
		Msg("Nova has an instance here whose domain libvirt does not know")
	i.Server = &server
	m.out.Here = append(m.out.Here, i)
	return nil
}
