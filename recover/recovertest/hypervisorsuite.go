package recovertest

import (
	"context"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// TestHypervisor holds an implementation of recover.Hypervisor, with its mirrors and
// events, against what the comments of that interface say. It needs root, and qemu-img
// to read an export.
func TestHypervisor(t *testing.T, bed HypervisorBed) {
	for _, part := range []struct {
		name string
		test func(*hypervisorSuite)
	}{
		{"a look at domains", (*hypervisorSuite).looks},
		{"a domain that nobody knows", (*hypervisorSuite).unknown},
		{"a definition", (*hypervisorSuite).definitions},
		{"suspend and resume", (*hypervisorSuite).pauses},
		{"a pause of somebody else", (*hypervisorSuite).othersPause},
		{"start and destroy", (*hypervisorSuite).lives},
		{"counters", (*hypervisorSuite).counters},
		{"freeze and thaw", (*hypervisorSuite).freezes},
		{"no agent", (*hypervisorSuite).noAgent},
		{"a mirror", (*hypervisorSuite).mirrors},
		{"a mirror whose file is elsewhere", (*hypervisorSuite).renamedMirrors},
		{"a mirror of every disk of a paused domain", (*hypervisorSuite).pausedMirrors},
		{"a mirror that is not ready", (*hypervisorSuite).slowMirrors},
		{"a mirror that ends", (*hypervisorSuite).endsMirrors},
		{"a mirror that fails", (*hypervisorSuite).failedMirrors},
		{"an export", (*hypervisorSuite).exports},
		{"an export that can't be", (*hypervisorSuite).noExports},
		{"events", (*hypervisorSuite).events},
		{"a slow receiver of events", (*hypervisorSuite).slowEvents},
		{"a context that has ended", (*hypervisorSuite).ended},
		{"a context that ends meanwhile", (*hypervisorSuite).ends},
		{"a domain that vanishes", (*hypervisorSuite).vanishes},
		{"many calls at once", (*hypervisorSuite).concurrent},
		{"a connection that breaks", (*hypervisorSuite).broken},
		{"a hypervisor that is away", (*hypervisorSuite).away},
	} {
		t.Run(part.name, func(t *testing.T) {
			part.test(&hypervisorSuite{T: t, ctx: t.Context(), bed: bed, hv: bed.Open(t, patience)})
		})
	}
}

// patience is how long the suite waits for what will come: only a broken machine
// meets it.
const patience = 2 * time.Minute

// hypervisorSuite is one part of TestHypervisor.
type hypervisorSuite struct {
	*testing.T
	ctx context.Context
	bed HypervisorBed
	hv  recover.Hypervisor
}

func (s *hypervisorSuite) guest(kind GuestKind) SuiteGuest {
	s.Helper()
	return s.bed.Guest(s.T, kind)
}

// await waits until done.
func (s *hypervisorSuite) await(what string, done func() bool) {
	s.Helper()
	const pause = 20 * time.Millisecond
	for start := time.Now(); !done(); time.Sleep(pause) {
		if time.Since(start) > patience {
			s.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// must is for what has to work for the rest to say anything.
func (s *hypervisorSuite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// works is for what a sentence of the port promises.
func (s *hypervisorSuite) works(what string, err error) {
	s.Helper()
	if err != nil {
		s.Errorf("%s: %v", what, err)
	}
}

func (s *hypervisorSuite) domain(g SuiteGuest) recover.Domain {
	s.Helper()
	d, err := s.hv.Domain(s.ctx, g.UUID)
	s.must(err)
	return d
}

// is checks a domain's state. Only what is paused has a reason.
func (s *hypervisorSuite) is(g SuiteGuest, when string, state recover.DomainState, reason recover.PauseReason) {
	s.Helper()
	if d := s.domain(g); d.State != state || d.PauseReason != reason {
		s.Errorf("%s: the domain is %s (%q), not %s (%q)", when, d.State, d.PauseReason, state, reason)
	}
}

func (s *hypervisorSuite) count(g SuiteGuest) map[string]recover.BlockCounters {
	s.Helper()
	c, err := s.hv.Counters(s.ctx, g.UUID)
	s.must(err)
	return c
}

// asked has a running guest write, and returns when both its disks have counted it.
func (s *hypervisorSuite) asked(g SuiteGuest) {
	s.Helper()
	before := s.count(g)
	s.bed.Ask(s.T, g)
	s.written(g, before)
}

// written waits for a further write to each disk.
func (s *hypervisorSuite) written(g SuiteGuest, before map[string]recover.BlockCounters) {
	s.Helper()
	s.await("the guest's writes", func() bool {
		now := s.count(g)
		return now["vda"].WriteRequests > before["vda"].WriteRequests && now["vdb"].WriteRequests > before["vdb"].WriteRequests
	})
}
