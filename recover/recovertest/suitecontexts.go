package recovertest

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// testEndedContext: nothing happens under a context that has ended.
func testEndedContext(s *hypervisorSuite) {
	running, paused, off := s.guest(KindRunning), s.guest(KindRunning), s.guest(KindOff)
	s.must(s.hv.Suspend(s.ctx, paused.UUID))
	doc, err := s.hv.XML(s.ctx, off.UUID)
	s.must(err)
	s.bed.Undefine(s.T, off)
	before := []recover.Domain{s.domain(running), s.domain(paused)}

	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	under := &hypervisorSuite{T: s.T, ctx: ctx, bed: s.bed, hv: s.hv}
	for _, g := range []SuiteGuest{running, paused} {
		for name, err := range errorsAbout(under, g.UUID) {
			if !errors.Is(err, context.Canceled) {
				s.Errorf("%s: error %v, want the context's", name, err)
			}
		}
	}
	for name, call := range map[string]func() error{
		"Version":       func() error { _, err := s.hv.Version(ctx); return err },
		"Domains":       func() error { _, err := s.hv.Domains(ctx); return err },
		"Define":        func() error { return s.hv.Define(ctx, doc) },
		"MirrorSupport": func() error { _, err := s.hv.MirrorSupport(ctx); return err },
		"Events":        func() error { _, err := s.hv.Events(ctx); return err },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			s.Errorf("%s: error %v, want the context's", name, err)
		}
	}
	if after := []recover.Domain{s.domain(running), s.domain(paused)}; !reflect.DeepEqual(after, before) {
		s.Errorf("under a context that had ended the domains became\n%+v\nfrom\n%+v", after, before)
	}
	if _, err := s.hv.Domain(s.ctx, off.UUID); !errors.Is(err, recover.ErrNoDomain) {
		s.Errorf("under a context that had ended a domain was defined: error %v", err)
	}
}

// testEndingContext: a call whose context ends in the middle has happened when it returns, or will not.
func testEndingContext(s *hypervisorSuite) {
	for _, c := range []struct {
		method string
		kind   GuestKind
		do     func(ctx context.Context, g SuiteGuest) error
		state  recover.DomainState // that it leads to
	}{
		{"Suspend", KindRunning, func(ctx context.Context, g SuiteGuest) error { return s.hv.Suspend(ctx, g.UUID) }, recover.StatePaused},
		{"Start", KindOff, func(ctx context.Context, g SuiteGuest) error { return s.hv.Start(ctx, g.UUID, false) }, recover.StateRunning},
		{"Destroy", KindRunning, func(ctx context.Context, g SuiteGuest) error { return s.hv.Destroy(ctx, g.UUID) }, recover.StateShutOff},
	} {
		g := s.guest(c.kind)
		was := s.domain(g).State
		ctx, cancel := context.WithCancel(s.ctx)
		called := false
		err := c.do(s.bed.Within(ctx, s.T, c.method, func() { called = true; cancel() }), g)
		cancel()
		if !called {
			s.Errorf("%s: its context did not end in the middle: the test tests nothing", c.method)
		}
		want := c.state
		if err != nil {
			want = was
			if !errors.Is(err, context.Canceled) {
				s.Errorf("%s: error %v, want the context's or none", c.method, err)
			}
		}
		for range 2 {
			if now := s.domain(g).State; now != want {
				s.Errorf("%s returned error %v, and the domain is %s; it was %s", c.method, err, now, was)
			}
			const later = 200 * time.Millisecond
			time.Sleep(later)
		}
	}
}

// testVanishingDomain: a domain that vanishes during the look is left out.
func testVanishingDomain(s *hypervisorSuite) {
	g, stays := s.guest(KindTransient), s.guest(KindRunning)
	ctx := s.bed.Within(s.ctx, s.T, "Domains", func() {
		if err := s.hv.Destroy(s.ctx, g.UUID); err != nil {
			s.Error(err)
		}
	})
	all, err := s.hv.Domains(ctx)
	s.must(err)
	if _, err := s.hv.Domain(s.ctx, g.UUID); !errors.Is(err, recover.ErrNoDomain) {
		s.Errorf("it has not vanished (error %v): the test tests nothing", err)
	}
	seen := map[string]bool{}
	for _, d := range all {
		seen[d.UUID] = true
	}
	if seen[g.UUID] || !seen[stays.UUID] {
		s.Errorf("among all is the one that vanished: %v, the one that stays: %v", seen[g.UUID], seen[stays.UUID])
	}
}

// testConcurrentCalls: every method may be called at any time.
func testConcurrentCalls(s *hypervisorSuite) {
	one, two := s.guest(KindRunning), s.guest(KindRunning)
	var wg sync.WaitGroup
	for _, do := range []func() error{
		func() error { _, err := s.hv.Domains(s.ctx); return err },
		func() error { _, err := s.hv.Domain(s.ctx, one.UUID); return err },
		func() error { _, err := s.hv.Counters(s.ctx, two.UUID); return err },
		func() error { _, err := s.hv.XML(s.ctx, two.UUID); return err },
		func() error { return s.hv.Suspend(s.ctx, one.UUID) },
		func() error { return s.hv.Resume(s.ctx, two.UUID) },
		func() error { return s.hv.EndMirror(s.ctx, two.UUID, "vdb") },
	} {
		for range 3 {
			wg.Go(func() { s.works("one of many calls at once", do()) })
		}
	}
	wg.Wait()
	s.is(one, "afterwards", recover.StatePaused, recover.PauseUser)
	s.is(two, "afterwards", recover.StateRunning, recover.PauseNone)
}

// testBrokenConnection: a connection that broke is opened again, and nobody notices but who listens
// for events: anything may have happened.
func testBrokenConnection(s *hypervisorSuite) {
	g := s.guest(KindRunning)
	ch := listen(s)
	m := mirrorRequest(s, s.domain(g))
	for _, c := range []struct {
		method string
		do     func() error
	}{
		{"Domains", func() error { _, err := s.hv.Domains(s.ctx); return err }},
		{"Suspend", func() error { return s.hv.Suspend(s.ctx, g.UUID) }},
		{"Counters", func() error { _, err := s.hv.Counters(s.ctx, g.UUID); return err }},
		{"Mirror", func() error { return s.hv.Mirror(s.ctx, g.UUID, m) }},
		{"MirrorState", func() error { _, err := s.hv.MirrorState(s.ctx, g.UUID, "vdb"); return err }},
		{"EndMirror", func() error { return s.hv.EndMirror(s.ctx, g.UUID, "vdb") }},
		{"Resume", func() error { return s.hv.Resume(s.ctx, g.UUID) }},
	} {
		s.bed.Restart(s.T)
		s.works(c.method+" after a connection broke", c.do())
	}
	s.is(g, "afterwards", recover.StateRunning, recover.PauseNone)
	awaitTold(s, ch, "a connection that broke", "")
	s.await("a change to be told by name again", func() bool {
		s.must(s.hv.Suspend(s.ctx, g.UUID))
		s.must(s.hv.Resume(s.ctx, g.UUID))
		uuid := "" // may be of an earlier break, and be told in the name's place
		select {
		case uuid = <-ch:
		case <-time.After(time.Second):
		}
		return uuid == g.UUID
	})
}

// testAwayHypervisor: ErrUnavailable, and no hang.
func testAwayHypervisor(s *hypervisorSuite) {
	g := s.guest(KindRunning)
	doc, err := s.hv.XML(s.ctx, g.UUID)
	s.must(err)
	impatient := &hypervisorSuite{T: s.T, ctx: s.ctx, bed: s.bed, hv: s.bed.Open(s.T, time.Millisecond)}
	_, err = impatient.hv.Version(s.ctx)
	s.must(err)
	back := s.bed.Away(s.T)
	for name, call := range map[string]func() error{
		"Version":       func() error { _, err := impatient.hv.Version(s.ctx); return err },
		"Domains":       func() error { _, err := impatient.hv.Domains(s.ctx); return err },
		"Define":        func() error { return impatient.hv.Define(s.ctx, doc) },
		"MirrorSupport": func() error { _, err := impatient.hv.MirrorSupport(s.ctx); return err },
		"Events":        func() error { _, err := impatient.hv.Events(s.ctx); return err },
	} {
		if err := call(); !errors.Is(err, recover.ErrUnavailable) {
			s.Errorf("%s: error %v, want ErrUnavailable", name, err)
		}
	}
	for name, err := range errorsAbout(impatient, g.UUID) {
		if !errors.Is(err, recover.ErrUnavailable) {
			s.Errorf("%s: error %v, want ErrUnavailable", name, err)
		}
	}
	back()
	s.works("a look when it is back", func() error { _, err := impatient.hv.Domain(s.ctx, g.UUID); return err }())
	s.is(g, "afterwards", recover.StateRunning, recover.PauseNone)
}
