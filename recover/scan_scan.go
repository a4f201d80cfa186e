package recover

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// scanner looks at a host's domains and the files that they need, and finds the state
// of each file. It changes nothing. It is safe for concurrent use.
type scanner struct {
	settings   Settings
	hypervisor Hypervisor
	pins       pinLister
	runs       hostRuns
}

// pinLister lists what the keeper and the guard hold. The guard itself lists its own
// pins without asking over a socket.
type pinLister func(ctx context.Context) ([]heldPin, error)

// newScanner returns the scanner of the host that settings describe. It asks
// hypervisor for domains and pins for held files, and does nothing until then.
func newScanner(settings Settings, hypervisor Hypervisor, pins pinLister) *scanner {
	return &scanner{settings: settings, hypervisor: hypervisor, pins: pins, runs: runsOf(settings.StateDir)}
}

// host scans every domain of the host, and what the guard holds of instances that
// libvirt no longer knows. holders are the PIDs of processes that the operator named:
// the files that they hold count for domains that are off. The instances are sorted by
// domain name.
//
// The error wraps ErrUnavailable when the hypervisor does not answer, ErrUnusable when
// the root can't be opened, fs.ErrPermission when /proc may not be read, and ErrUsage
// when a holder can't be examined. An instance that could not be examined is in the
// report with VerdictUnknown and its reasons.
func (s *scanner) host(ctx context.Context, holders []int) (Report, error) {
	l, err := s.look(ctx, holders)
	if err != nil {
		return Report{}, err
	}
	defer l.Close()
	domains, err := s.hypervisor.Domains(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("list the domains: %w", err)
	}
	report := Report{Host: s.settings.Host, Taken: time.Now().UTC(), Instances: []Instance{}}
	known := map[string]bool{}
	for _, d := range domains {
		i, err := l.instance(ctx, d)
		if err != nil {
			return Report{}, err
		}
		known[d.UUID] = true
		report.Instances = append(report.Instances, i)
	}
	guarded, err := l.inventoryOnly(ctx, known)
	if err != nil {
		return Report{}, err
	}
	report.Instances = append(report.Instances, guarded...)
	explainLost(report.Instances)
	slices.SortFunc(report.Instances, func(a, b Instance) int { return cmp.Compare(a.Domain, b.Domain) })
	return report, nil
}

// domain scans one domain. Errors are those of host.
func (s *scanner) domain(ctx context.Context, d Domain) (Instance, error) {
	l, err := s.look(ctx, nil)
	if err != nil {
		return Instance{}, err
	}
	defer l.Close()
	return l.instance(ctx, d)
}

// uuid scans the domain of that UUID as the hypervisor has it now. ErrNoDomain when
// it has none; other errors are those of host.
func (s *scanner) uuid(ctx context.Context, uuid string) (Instance, error) {
	d, err := s.hypervisor.Domain(ctx, uuid)
	if err != nil {
		return Instance{}, err
	}
	return s.domain(ctx, d)
}

// novaOnly scans an instance that Nova has on this host but whose domain libvirt does
// not know. holders and errors are those of host.
func (s *scanner) novaOnly(ctx context.Context, server Server, holders []int) (Instance, error) {
	l, err := s.look(ctx, holders)
	if err != nil {
		return Instance{}, err
	}
	defer l.Close()
	return l.novaOnly(server)
}
