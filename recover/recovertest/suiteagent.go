package recovertest

import (
	"errors"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// agentLimit is for an agent that answers, on a busy machine.
const agentLimit = time.Minute

// testFreezes: Freeze and Thaw of a guest whose agent answers.
func testFreezes(s *hypervisorSuite) {
	g := s.guest(KindAgent)
	s.works("Thaw of what is not frozen", s.hv.Thaw(s.ctx, g.UUID, agentLimit))
	s.works("Freeze", s.hv.Freeze(s.ctx, g.UUID, agentLimit))
	if !s.bed.Frozen(s.T, g) {
		s.Error("after Freeze the guest is not frozen")
	}
	s.is(g, "after Freeze", recover.StateRunning, recover.PauseNone)

	// A guest that is suspended can't answer, and stays as it is.
	s.must(s.hv.Suspend(s.ctx, g.UUID))
	if err := s.hv.Thaw(s.ctx, g.UUID, agentLimit); !errors.Is(err, recover.ErrNoAgent) {
		s.Errorf("Thaw of a suspended guest: error %v, want ErrNoAgent", err)
	}
	s.must(s.hv.Resume(s.ctx, g.UUID))
	if !s.bed.Frozen(s.T, g) {
		s.Error("a suspend and a resume thawed the guest")
	}
	for _, what := range []string{"Thaw", "a second Thaw"} {
		s.works(what, s.hv.Thaw(s.ctx, g.UUID, agentLimit))
		if s.bed.Frozen(s.T, g) {
			s.Errorf("after %s the guest is frozen", what)
		}
	}

	s.must(s.hv.Suspend(s.ctx, g.UUID))
	if err := s.hv.Freeze(s.ctx, g.UUID, agentLimit); !errors.Is(err, recover.ErrNoAgent) {
		s.Errorf("Freeze of a suspended guest: error %v, want ErrNoAgent", err)
	}
	s.must(s.hv.Resume(s.ctx, g.UUID))
	if s.bed.Frozen(s.T, g) {
		s.Error("Freeze of a suspended guest froze it when it was resumed")
	}
}

// testNoAgent: ErrNoAgent within the limit.
func testNoAgent(s *hypervisorSuite) {
	g := s.guest(KindRunning)
	for _, state := range []string{"running", "off"} {
		if state == "off" {
			s.must(s.hv.Destroy(s.ctx, g.UUID))
		}
		start := time.Now()
		if err := s.hv.Freeze(s.ctx, g.UUID, time.Second); !errors.Is(err, recover.ErrNoAgent) {
			s.Errorf("Freeze of a guest without an agent, %s: error %v, want ErrNoAgent", state, err)
		}
		if err := s.hv.Thaw(s.ctx, g.UUID, time.Second); !errors.Is(err, recover.ErrNoAgent) {
			s.Errorf("Thaw of a guest without an agent, %s: error %v, want ErrNoAgent", state, err)
		}
		if took := time.Since(start); took > agentLimit {
			s.Errorf("%s: with a limit of a second they took %s", state, took)
		}
	}
}
