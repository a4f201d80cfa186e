package recover

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// scanner looks at a host's domains and at the files that they need, and says where
// each of them stands. It changes nothing. It is safe for concurrent use.
type scanner struct {
	settings   Settings
	hypervisor Hypervisor
	pins       pinLister
	runs       hostRuns
}

// pinLister says what the keeper and the guard hold. A guard knows its own pins
// without asking.
type pinLister func(ctx context.Context) ([]heldPin, error)

// newScanner makes the scanner of a host.
func newScanner(settings Settings, hypervisor Hypervisor, pins pinLister) *scanner {
	return &scanner{settings: settings, hypervisor: hypervisor, pins: pins, runs: runsOf(settings.StateDir)}
}

// host scans every domain of the host. holders are the pids of processes that an
// operator has named: what they hold counts for the files of domains that are off.
//
// The error wraps ErrUnavailable when the hypervisor does not answer,
// fs.ErrPermission when /proc may not be read, and ErrUsage when a holder can't be
// looked at. What could not be found out about one instance is said in that
// instance, with VerdictUnknown.
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

// domain scans one domain alone. Errors are those of host.
func (s *scanner) domain(ctx context.Context, d Domain) (Instance, error) {
	l, err := s.look(ctx, nil)
	if err != nil {
		return Instance{}, err
	}
	defer l.Close()
	return l.instance(ctx, d)
}

// uuid scans the domain of that UUID, as the hypervisor has it now. ErrNoDomain.
func (s *scanner) uuid(ctx context.Context, uuid string) (Instance, error) {
	d, err := s.hypervisor.Domain(ctx, uuid)
	if err != nil {
		return Instance{}, err
	}
	return s.domain(ctx, d)
}

// novaOnly scans an instance that Nova has on this host and whose domain libvirt does
// not know. holders are as for host.
func (s *scanner) novaOnly(ctx context.Context, server Server, holders []int) (Instance, error) {
	l, err := s.look(ctx, holders)
	if err != nil {
		return Instance{}, err
	}
	defer l.Close()
	return l.novaOnly(server)
}
