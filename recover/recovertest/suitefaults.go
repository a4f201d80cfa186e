package recovertest

import (
	"context"
	"sync"

	"github.com/os-rescue/os-rescue/recover"
)

// passes: what may be asked twice is asked again.
func (s *cloudSuite) passes() {
	c := s.scene.Admin(s.T)
	web1 := s.scene.Instances["web1"]
	const n = 2
	for _, call := range []struct {
		name    string
		do      func() error
		actions int
	}{
		{"Server", func() error { _, err := c.Server(s.ctx, web1); return err }, 0},
		{"Lock", func() error { return c.Lock(s.ctx, web1, lockReason) }, n + 1},
		{"Unlock", func() error { return c.Unlock(s.ctx, web1) }, n + 1},
	} {
		s.scene.Fail(n)
		if err := call.do(); err != nil {
			s.Errorf("%s: %v", call.name, err)
		}
		if got := s.scene.Actions(); got != call.actions {
			s.Errorf("%s: %d requests to change an instance, want %d", call.name, got, call.actions)
		}
	}
}

// once: what may have been accepted is not asked again.
func (s *cloudSuite) once() {
	c := s.scene.Admin(s.T)
	web1 := s.scene.Instances["web1"]
	for name, do := range map[string]func(context.Context, string) error{"HardReboot": c.HardReboot, "Pause": c.Pause} {
		s.scene.Fail(1)
		s.fails(name, do(s.ctx, web1), recover.ErrCloudUnavailable)
		if n := s.scene.Actions(); n != 1 {
			s.Errorf("%s was asked for %d times", name, n)
		}
	}
	s.scene.Fail(0)
	if err := c.HardReboot(s.ctx, web1); err != nil {
		s.Errorf("HardReboot afterwards: %v", err)
	}
}

// about is every method about one instance.
func (s *cloudSuite) about(ctx context.Context, c recover.Cloud, uuid string) map[string]error {
	_, server := c.Server(ctx, uuid)
	_, last := c.LastReboot(ctx, uuid)
	return map[string]error{
		"Server": server, "LastReboot": last, "Lock": c.Lock(ctx, uuid, "why"), "Unlock": c.Unlock(ctx, uuid),
		"HardReboot": c.HardReboot(ctx, uuid), "Pause": c.Pause(ctx, uuid),
	}
}

func (s *cloudSuite) unavailable() {
	c := s.scene.Admin(s.T)
	s.scene.Fail(-1)
	for name, err := range s.about(s.ctx, c, s.scene.Instances["web1"]) {
		s.fails(name, err, recover.ErrCloudUnavailable)
	}
}

func (s *cloudSuite) renews() {
	c := s.scene.Admin(s.T)
	s.scene.Expire()
	if err := c.HardReboot(s.ctx, s.scene.Instances["web1"]); err != nil {
		s.Errorf("after the token has run out: %v", err)
	}
}

func (s *cloudSuite) refused() {
	c := s.scene.Admin(s.T)
	s.scene.Revoke()
	for name, err := range s.about(s.ctx, c, s.scene.Instances["web1"]) {
		s.fails(name, err, recover.ErrCredentials)
	}
}

func (s *cloudSuite) ended() {
	c := s.scene.Admin(s.T)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	s.scene.Fail(0)
	errs := s.about(ctx, c, s.scene.Instances["web1"])
	_, errs["Project"] = c.Project(ctx, s.scene.Project, "")
	_, errs["Servers"] = c.Servers(ctx, recover.ServerFilter{})
	_, errs["Deleted"] = c.Deleted(ctx, s.scene.Instances["web1"])
	_, errs["ComputeService"] = c.ComputeService(ctx, s.scene.Host)
	for name, err := range errs {
		s.fails(name, err, context.Canceled)
	}
	if n := s.scene.Actions(); n != 0 {
		s.Errorf("%d requests were made", n)
	}
}

func (s *cloudSuite) concurrent() {
	c := s.scene.Admin(s.T)
	web1 := s.scene.Instances["web1"]
	var wg sync.WaitGroup
	for _, do := range []func() error{
		func() error { _, err := c.Server(s.ctx, web1); return err },
		func() error { return c.Lock(s.ctx, web1, lockReason) },
		func() error { return c.Unlock(s.ctx, web1) },
		func() error { _, err := c.Server(s.ctx, s.scene.Instances["big"]); return err },
	} {
		for range 3 {
			wg.Go(func() {
				if err := do(); err != nil {
					s.Error(err)
				}
			})
		}
	}
	wg.Wait()
}
