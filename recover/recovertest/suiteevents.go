package recovertest

import (
	"context"
	"time"
)

// listen returns what Events tells from now on, until the part of the suite ends.
func listen(s *hypervisorSuite) <-chan string {
	s.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	ch, err := s.hv.Events(ctx)
	s.must(err)
	s.Cleanup(func() {
		cancel()
		for range ch {
		}
	})
	return ch
}

// awaitTold waits until a UUID is told, and ignores those that are told before it.
func awaitTold(s *hypervisorSuite, ch <-chan string, after, want string) {
	s.Helper()
	for limit := time.After(patience); ; {
		select {
		case uuid, ok := <-ch:
			if !ok {
				s.Fatalf("after %s: the channel is closed", after)
			}
			if uuid == want {
				return
			}
		case <-limit:
			s.Fatalf("after %s: %q is not told", after, want)
		}
	}
}

// drainEvents returns how often a UUID was told, until another one is, which is told last.
func drainEvents(s *hypervisorSuite, ch <-chan string, uuid, last string) (n int) {
	s.Helper()
	for limit := time.After(patience); ; {
		select {
		case got := <-ch:
			switch got {
			case uuid:
				n++
			case last:
				return n
			}
		case <-limit:
			s.Fatalf("%q is not told", last)
		}
	}
}

// testEvents: each change of a domain is told, and nothing when nothing changes.
func testEvents(s *hypervisorSuite) {
	g, mark := s.guest(KindRunning), s.guest(KindRunning)
	doc, err := s.hv.XML(s.ctx, g.UUID)
	s.must(err)
	ch := listen(s)
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"suspend", func() error { return s.hv.Suspend(s.ctx, g.UUID) }},
		{"resume", func() error { return s.hv.Resume(s.ctx, g.UUID) }},
		{"stop", func() error { return s.hv.Destroy(s.ctx, g.UUID) }},
		{"undefine", func() error { s.bed.Undefine(s.T, g); return nil }},
		{"define", func() error { return s.hv.Define(s.ctx, doc) }},
		{"start", func() error { return s.hv.Start(s.ctx, g.UUID, false) }},
	} {
		s.must(c.do())
		awaitTold(s, ch, c.what, g.UUID)
		// Further events of that domain are told before the next domain's.
		s.must(s.hv.Suspend(s.ctx, mark.UUID))
		awaitTold(s, ch, "a suspend", mark.UUID)
		s.must(s.hv.Resume(s.ctx, mark.UUID))
		awaitTold(s, ch, "a resume", mark.UUID)
	}
	s.count(g)
	s.domain(g)
	s.must(s.hv.Suspend(s.ctx, mark.UUID))
	if n := drainEvents(s, ch, g.UUID, mark.UUID); n != 0 {
		s.Errorf("looks at a domain were told %d times", n)
	}
}

// testSlowEvents: nobody waits for a receiver, and its channel is closed.
func testSlowEvents(s *hypervisorSuite) {
	g, mark := s.guest(KindRunning), s.guest(KindRunning)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	ch, err := s.hv.Events(ctx)
	s.must(err)
	const often = 5
	for range often {
		s.must(s.hv.Suspend(s.ctx, g.UUID))
		s.must(s.hv.Resume(s.ctx, g.UUID))
	}
	s.must(s.hv.Suspend(s.ctx, mark.UUID))
	// The first may have been on its way when the second came.
	if n := drainEvents(s, ch, g.UUID, mark.UUID); n < 1 || n > 2 {
		s.Errorf("of %d changes that nobody received %d were told", 2*often, n)
	}
	cancel()
	limit := time.After(patience)
	for {
		select {
		case _, open := <-ch:
			if !open {
				return
			}
		case <-limit:
			s.Fatal("the channel is not closed after its context has ended")
		}
	}
}
