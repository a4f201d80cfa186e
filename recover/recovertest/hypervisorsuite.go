package recovertest

import (
	"context"
	"os"
	"slices"
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
		{"a look at domains", testLooks},
		{"a domain that nobody knows", testUnknownDomain},
		{"a definition", testDefinitions},
		{"what the next start opens", testNextStart},
		{"what a start needs", testStartNeeds},
		{"suspend and resume", testPauses},
		{"a pause of somebody else", testOthersPause},
		{"start and destroy", testLives},
		{"counters", testCounters},
		{"freeze and thaw", testFreezes},
		{"no agent", testNoAgent},
		{"a mirror", testMirrors},
		{"a mirror whose file is elsewhere", testRenamedMirrors},
		{"a mirror of every disk of a paused domain", testPausedMirrors},
		{"a mirror that is not ready", testSlowMirrors},
		{"a mirror that ends", testEndedMirrors},
		{"a mirror that fails", testFailedMirrors},
		{"an export", testExports},
		{"an export that can't be", testFailedExports},
		{"events", testEvents},
		{"a slow receiver of events", testSlowEvents},
		{"a context that has ended", testEndedContext},
		{"a context that ends meanwhile", testEndingContext},
		{"a domain that vanishes", testVanishingDomain},
		{"many calls at once", testConcurrentCalls},
		{"a connection that breaks", testBrokenConnection},
		{"a hypervisor that is away", testAwayHypervisor},
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

// disk returns a disk of a domain.
func (s *hypervisorSuite) disk(d recover.Domain, target string) recover.Disk {
	s.Helper()
	n := slices.IndexFunc(d.Disks, func(disk recover.Disk) bool { return disk.Target == target })
	if n < 0 {
		s.Fatalf("domain %s has no disk %s: %+v", d.UUID, target, d.Disks)
	}
	if len(d.Disks[n].Chain) == 0 {
		s.Fatalf("the chain of %s is empty", target)
	}
	return d.Disks[n]
}

// holds tells whether the domain's QEMU has the file at a path open.
func (s *hypervisorSuite) holds(d recover.Domain, path string) bool {
	s.Helper()
	held, err := holds(d.PID, path)
	s.must(err)
	return held
}

// read returns what the file of vdb holds: what the guest sees there.
func (s *hypervisorSuite) read(g SuiteGuest) string {
	s.Helper()
	data, err := os.ReadFile(s.disk(s.domain(g), "vdb").Chain[0].Path)
	s.must(err)
	return string(data)
}
