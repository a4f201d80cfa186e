package recover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rs/zerolog"
)

// selected is what a selection means: what a run may work on here, and what is
// left to other hosts.
type selected struct {
	here      []Instance
	elsewhere []Elsewhere
	warnings  []string
}

// mapper joins what Nova says of instances with the scans of their hosts.
type mapper struct {
	scanner *scanner
	cloud   Cloud
	options Options
	scans   []Report
	out     selected
	seen    map[string]bool // by UUID
}

// mapOnline returns what the selection means, by Nova. Every instance is Nova's
// word and libvirt's together; where the two disagree it is left alone. The scans
// are this host's own, or in its place those of other hosts.
func (c *choice) mapOnline(ctx context.Context, cloud Cloud, scans []Report) (selected, error) {
	m := &mapper{scanner: c.scanner, cloud: cloud, options: c.options, scans: scans, seen: map[string]bool{}}
	var err error
	switch s := c.options.Selection; {
	case s.All:
		err = m.all(ctx)
	case s.Project != "":
		err = m.project(ctx)
	default:
		err = m.instances(ctx)
	}
	slices.SortFunc(m.out.here, func(a, b Instance) int { return strings.Compare(a.Domain, b.Domain) })
	return m.out, err
}

// hosts are the compute hosts whose instances are meant by --all.
func (m *mapper) hosts() []string {
	if h := m.options.Selection.Host; h != "" {
		return []string{h}
	}
	var hosts []string
	for _, scan := range m.scans {
		hosts = append(hosts, scan.Host)
	}
	return hosts
}

func (m *mapper) all(ctx context.Context) error {
	hosts := m.hosts()
	servers, err := m.cloud.Servers(ctx, ServerFilter{Hosts: hosts})
	if err != nil {
		return fmt.Errorf("list the instances of %s: %w", strings.Join(hosts, ", "), err)
	}
	if err := m.addAll(ctx, servers); err != nil {
		return err
	}
	return m.leftovers(ctx, func(i Instance) bool {
		return i.domain.Nova != nil || i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected
	})
}

func (m *mapper) project(ctx context.Context) error {
	s := m.options.Selection
	id, err := m.cloud.Project(ctx, s.Project, s.ProjectDomain)
	if errors.Is(err, ErrForbidden) {
		// Who may not look projects up may still know one by its domains here.
		chosen, lerr := projectIn(m.joined(), s.Project)
		if lerr != nil {
			return fmt.Errorf("%w (or give the project's ID, or --instance)", errors.Join(err, lerr))
		}
		if id = chosen[0].ProjectID; id == "" { // which would list every project's
			return fmt.Errorf("%w (and its domains here do not say its ID: give --instance)", err)
		}
	} else if err != nil {
		return fmt.Errorf("project %s: %w", s.Project, err)
	}
	filter := ServerFilter{ProjectID: id}
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
	if err := m.leftovers(ctx, func(i Instance) bool { return i.ProjectID == id }); err != nil {
		return err
	}
	if len(m.seen) == 0 {
		return fmt.Errorf("%w: project %s has no instances", ErrNothingSelected, s.Project)
	}
	return nil
}

func (m *mapper) instances(ctx context.Context) error {
	all := m.joined().Instances
	for _, want := range m.options.Selection.Instances {
		uuid := strings.ToLower(want)
		if n := slices.IndexFunc(all, func(i Instance) bool { return i.Domain == want }); n >= 0 {
			uuid = all[n].UUID
		}
		if m.seen[uuid] {
			continue
		}
		server, err := m.cloud.Server(ctx, uuid)
		i, _ := m.scanned(uuid)
		switch {
		case err == nil && m.leftOut(server.Host):
			return fmt.Errorf("%w: Nova has %s on host %q, and --host is %s", ErrNothingSelected, want, server.Host, m.options.Selection.Host)
		case err == nil:
			if err := m.add(ctx, server, true); err != nil {
				return err
			}
		case errors.Is(err, ErrNoInstance) && i == nil:
			return fmt.Errorf("%w: %s: %w", ErrNothingSelected, want, err)
		default:
			if err := m.askedAlone(uuid, Server{}, err); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *mapper) addAll(ctx context.Context, servers []Server) error {
	for _, server := range servers {
		if err := m.add(ctx, server, false); err != nil {
			return err
		}
	}
	return nil
}

// leftovers asks Nova, one by one, for the scanned domains that are meant and
// that no list had: deleted, moved away, or of a cell that is down.
func (m *mapper) leftovers(ctx context.Context, meant func(Instance) bool) error {
	for _, i := range m.joined().Instances {
		if _, host := m.scanned(i.UUID); m.seen[i.UUID] || !meant(i) || m.leftOut(host) {
			continue
		}
		server, err := m.cloud.Server(ctx, i.UUID)
		if err := m.askedAlone(i.UUID, server, err); err != nil {
			return err
		}
	}
	return nil
}

// leftOut is true for a host that --host does not mean.
func (m *mapper) leftOut(host string) bool {
	h := m.options.Selection.Host
	return h != "" && h != host
}

// askedAlone takes in a scanned domain by Nova's answer for it alone.
func (m *mapper) askedAlone(uuid string, server Server, err error) error {
	i, host := m.scanned(uuid)
	m.seen[uuid] = true
	switch {
	case err == nil:
		m.merge(*i, host, server)
	case errors.Is(err, ErrNoInstance):
		m.disagree(*i, "Nova knows no such instance: it was deleted while its domain lived on, or the domain is not Nova's; its data is only in this domain")
	case i != nil && (errors.Is(err, ErrCloudUnavailable) || errors.Is(err, ErrForbidden)):
		// A cell that is down looks like the first, another project's instance to
		// a user who is no admin like the second. Neither says that it is deleted.
		m.disagree(*i, fmt.Sprintf("Nova does not say whose it is now: %v", err))
	default:
		return err
	}
	return nil
}

// joined is all scans as one.
func (m *mapper) joined() Report {
	var all Report
	for _, scan := range m.scans {
		all.Instances = append(all.Instances, scan.Instances...)
	}
	return all
}

// scanned returns an instance as a scan found it, and the host of that scan; nil
// when none has it.
func (m *mapper) scanned(uuid string) (*Instance, string) {
	for _, scan := range m.scans {
		for n := range scan.Instances {
			if scan.Instances[n].UUID == uuid {
				return &scan.Instances[n], scan.Host
			}
		}
	}
	return nil, ""
}

// add takes one instance in; named says that the operator named it.
func (m *mapper) add(ctx context.Context, server Server, named bool) error {
	if m.seen[server.UUID] {
		return nil
	}
	m.seen[server.UUID] = true
	if i, host := m.scanned(server.UUID); i != nil {
		m.merge(*i, host, server)
		return nil
	}
	ofThese := slices.ContainsFunc(m.scans, func(scan Report) bool { return scan.Host == server.Host })
	if !server.Unknown && ofThese {
		return m.absent(ctx, server)
	}
	where := Elsewhere{UUID: server.UUID, Name: server.Name, Host: server.Host, Status: server.Status, Unknown: server.Unknown}
	if !named {
		m.out.elsewhere = append(m.out.elsewhere, where)
		return nil
	}
	m.disagree(Instance{UUID: server.UUID, Name: server.Name, Domain: server.Domain, ProjectID: server.ProjectID, State: StateShutOff, Verdict: VerdictUnknown}, where.sentence())
	return nil
}

// merge takes in an instance whose domain was found on a host.
func (m *mapper) merge(i Instance, host string, server Server) {
	i.server = &server
	if why := disagreement(i, host, server); why != "" {
		m.disagree(i, why)
		return
	}
	if i.Name == "" {
		i.Name = server.Name
	}
	if i.ProjectID == "" {
		i.ProjectID = server.ProjectID
	}
	m.out.here = append(m.out.here, i)
}

// disagreement says in what Nova and the scan of a host differ about an instance;
// empty when in nothing.
func disagreement(i Instance, host string, server Server) string {
	switch {
	case server.Unknown:
		return "its cell does not answer: whose host's it is, and in what state, is unknown"
	case server.Host != host:
		where := "no host"
		if server.Host != "" {
			where = "host " + server.Host
		}
		return fmt.Sprintf("Nova has it on %s, and its domain was found on %s: it was evacuated or migrated, and this domain is a leftover whose files may be another host's by now (if it is this host's name that is wrong, set host in the configuration)", where, host)
	case server.Domain != "" && server.Domain != i.Domain:
		return fmt.Sprintf("Nova calls its domain %s, and libvirt has its UUID under %s", server.Domain, i.Domain)
	}
	return ""
}

// disagree takes in an instance that is shown and left alone.
func (m *mapper) disagree(i Instance, why string) {
	i.disagreement = why
	m.out.here = append(m.out.here, i)
}

// absent takes in an instance that Nova has on a scanned host whose libvirt does
// not know it.
func (m *mapper) absent(ctx context.Context, server Server) error {
	i := Instance{UUID: server.UUID, Name: server.Name, Domain: server.Domain, ProjectID: server.ProjectID, State: StateShutOff, Verdict: VerdictUnknown, server: &server}
	if server.TaskState != "" {
		m.disagree(i, fmt.Sprintf("a task is under way (%s) and its domain is not there (yet): wait for it to end", server.TaskState))
		return nil
	}
	if m.options.Reboot.Remote {
		m.disagree(i, fmt.Sprintf("Nova has it on %s as %s, and the scan of that host has no such domain", server.Host, server.Status))
		return nil
	}
	i, err := m.scanner.novaOnly(ctx, server, m.options.Holders)
	if err != nil {
		return err
	}
	zerolog.Ctx(ctx).Debug().Str("instance", server.UUID).Str("verdict", string(i.Verdict)).Msg("Nova has it here and libvirt does not")
	i.server = &server
	m.out.here = append(m.out.here, i)
	return nil
}
