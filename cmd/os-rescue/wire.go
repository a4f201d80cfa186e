package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/hypervisor"
	"github.com/os-rescue/os-rescue/nova"
	"github.com/os-rescue/os-rescue/recover"
)

// connect wires libvirt and Nova into an engine. It does not contact Nova: the
// engine signs in when it needs to.
func connect(ctx context.Context, c connection) (engine, func(), error) {
	failpoint, err := failpoints(ctx, c.env)
	if err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: this program's own path: %w", recover.ErrUnusable, err)
	}
	e := &recover.Engine{Settings: c.config.Settings(), Progress: c.progress, Failpoint: failpoint}
	e.Settings.KeeperCommand = []string{self, "keeper", "--dir", c.config.StateDir}
	e.Settings.UndoCommand = undoCommand(c.env, append([]string{self, "undo"}, c.global...))
	e.SignIn = func(ctx context.Context) (recover.Cloud, error) {
		client, err := nova.Open(ctx, nova.Options{Cloud: c.config.OSCloud, RetryFor: c.config.NovaRetryFor, UserAgent: userAgent()})
		if err != nil {
			return nil, err // not client: a nil pointer in an interface is not nil
		}
		return client, nil
	}
	if !c.libvirt {
		return wired{e}, func() {}, nil
	}
	// The loop carries every connection's keepalive: it must run on while an
	// interrupted run is rolled back.
	loop, stop := context.WithCancel(c.logger.WithContext(context.WithoutCancel(ctx)))
	if err := hypervisor.StartEventLoop(loop); err != nil {
		stop()
		return nil, nil, fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	o := hypervisor.Options{URI: c.config.LibvirtURI, RunDir: c.config.LibvirtRunDir}
	if c.daemon {
		o.Lazy, o.RetryFor = true, guardRetryFor
	}
	client, err := hypervisor.Open(ctx, o)
	if err != nil {
		stop()
		return nil, nil, err
	}
	e.Hypervisor = client
	return wired{e}, func() {
		if err := client.Close(); err != nil {
			c.logger.Debug().Err(err).Msg("closing libvirt")
		}
		stop()
	}, nil
}

// wired is recover.Engine behind the interface engine.
type wired struct{ *recover.Engine }

func (w wired) Prepare(ctx context.Context, command recover.Command, o recover.Options) (session, error) {
	s, err := w.Engine.Prepare(ctx, command, o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (w wired) NewGuard(o recover.GuardOptions, shelf recover.Shelf, inherited []*os.File) (guard, error) {
	g, err := recover.NewGuard(recover.GuardDeps{Settings: w.Engine.Settings, Hypervisor: w.Engine.Hypervisor}, o, shelf, inherited)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// guardOptions returns the guard's part of the configuration, with a sign-in of its
// own. Credentials of a cloud admin are refused: the guard needs few rights, and its
// credentials are stored on every host.
func guardOptions(c config.Config) recover.GuardOptions {
	o := c.Guard
	if c.GuardCloud == "" {
		return o
	}
	o.SignIn = func(ctx context.Context) (recover.Cloud, error) {
		client, err := nova.Open(ctx, nova.Options{Cloud: c.GuardCloud, RetryFor: guardRetryFor, UserAgent: userAgent()})
		if err != nil {
			return nil, err
		}
		if client.Admin() {
			return nil, fmt.Errorf("%w: the credentials of guard.os_cloud (%s) have the role admin, which the guard refuses: "+
				"give it an account with only the rights that docs/openstack.md lists", recover.ErrRefused, c.GuardCloud)
		}
		return client, nil
	}
	return o
}

// guardRetryFor is short because the guard asks again at its next scan.
const guardRetryFor = 5 * time.Second

func userAgent() string { return "os-rescue/" + thisBuild().Version }

func (w wired) PrepareResume(ctx context.Context, run string, offline bool) (session, error) {
	s, err := w.Engine.PrepareResume(ctx, run, offline)
	if err != nil {
		return nil, err
	}
	return s, nil
}
