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
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/hostroot"
	"github.com/os-rescue/os-rescue/recover/leftover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/scan"
	"github.com/os-rescue/os-rescue/recover/statedir"
	"github.com/os-rescue/os-rescue/recover/verify"
)

// connect wires libvirt and Nova into an engine. It does not contact Nova: the
// engine signs in when it needs to.
func connect(ctx context.Context, c connection) (engine, func(), error) {
	failpoint, err := failpoints(ctx, c.env)
	if err != nil {
		return engine{}, nil, err
	}
	if err := statedir.Dir(c.config.StateDir).Check(); err != nil {
		return engine{}, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return engine{}, nil, fmt.Errorf("%w: this program's own path: %w", recover.ErrUnusable, err)
	}
	e := &run.Engine{Settings: c.config.Settings(), Progress: c.progress, Failpoint: failpoint}
	e.Settings.RunDir = runDir(c.env, e.Settings.RunDir)
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
		return wire(e, nil), func() {}, nil
	}
	// The loop carries every connection's keepalive: it must run on while an
	// interrupted run is rolled back.
	loop, stop := context.WithCancel(c.logger.WithContext(context.WithoutCancel(ctx)))
	if err := hypervisor.StartEventLoop(loop); err != nil {
		stop()
		return engine{}, nil, fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	o := hypervisor.Options{URI: c.config.LibvirtURI, RunDir: c.config.LibvirtRunDir}
	if c.daemon {
		o.Lazy, o.RetryFor = true, guardRetryFor
	}
	client, err := hypervisor.Open(ctx, o)
	if err != nil {
		stop()
		return engine{}, nil, err
	}
	e.Hypervisor = client
	root, err := findRoot(ctx, c, client, &e.Settings)
	if err != nil {
		_ = client.Close()
		stop()
		return engine{}, nil, err
	}
	return wire(e, root), func() {
		if root != nil {
			root.Close()
		}
		if err := client.Close(); err != nil {
			c.logger.Debug().Err(err).Msg("closing libvirt")
		}
		stop()
	}, nil
}

// findRoot finds the root in which libvirt sees the instances, and puts it into the settings.
// It returns nil if the configuration names a root, or if this process's own is the one; for
// a daemon it always returns one, because libvirt may come to live in a container later.
func findRoot(ctx context.Context, c connection, client *hypervisor.Client, s *recover.Settings) (*hostroot.Root, error) {
	if c.config.Root != config.RootAuto {
		return nil, nil
	}
	root, err := hostroot.Find(ctx, hostroot.Options{InstancesPath: s.InstancesPath, RunDir: c.config.LibvirtRunDir, Daemon: client.DaemonPID})
	if root == nil {
		return nil, fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	if err != nil {
		c.logger.Warn().Err(err).Msg("whether libvirt sees the instances in another root than this process can't be found out: set root")
	}
	if note := root.Note(); note != "" {
		c.logger.Debug().Str("root", root.Name()).Msg(note)
	}
	if root.Name() == "" && !c.daemon {
		root.Close()
		return nil, nil
	}
	if s.RootName = root.Name(); s.RootName != "" {
		c.logger.Info().Str("root", s.RootName).Msg("libvirt sees the instances in another root than this process: working there")
	}
	s.Root = root.Path()
	return root, nil
}

// wire makes the commands' engine on the settings and the ports of e. root is nil where
// the settings' root can't change.
func wire(e *run.Engine, root *hostroot.Root) engine {
	w := wired{e, root}
	return engine{scanner: w, runner: w, history: w, guards: w}
}

// wired puts the packages below recover behind the commands' interfaces.
type wired struct {
	engine *run.Engine
	root   *hostroot.Root
}

func (w wired) stateDir() string { return w.engine.Settings.StateDir }

// Scan is part of scanner.
func (w wired) Scan(ctx context.Context, hints recover.Hints) (recover.Report, error) {
	return scan.New(w.engine.Settings, w.engine.Hypervisor, pin.Lister(w.stateDir(), nil)).Thorough().Host(ctx, hints)
}

// DryRun is part of runner.
func (w wired) DryRun(ctx context.Context, command recover.Command, o recover.Options) (recover.Plan, error) {
	return w.engine.DryRun(ctx, command, o)
}

// Prepare is part of runner.
func (w wired) Prepare(ctx context.Context, command recover.Command, o recover.Options) (session, error) {
	s, err := w.engine.Prepare(ctx, command, o)
	if err != nil {
		return nil, err // not s: a nil pointer in an interface is not nil
	}
	return s, nil
}

// PrepareResume is part of runner.
func (w wired) PrepareResume(ctx context.Context, name string, offline bool) (session, error) {
	s, err := w.engine.PrepareResume(ctx, name, offline)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// PrepareAbandon is part of runner.
func (w wired) PrepareAbandon(ctx context.Context, name string, offline bool) (abandonment, error) {
	a, err := w.engine.PrepareAbandon(ctx, name, offline)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Undo is part of runner.
func (w wired) Undo(ctx context.Context, name string, lock *os.File, tree []*os.File) error {
	return w.engine.Undo(ctx, name, lock, tree)
}

// Runs is part of history.
func (w wired) Runs(ctx context.Context) ([]recover.RunStatus, error) {
	return runs.Of(w.stateDir()).All(ctx)
}

// Run is part of history.
func (w wired) Run(_ context.Context, name string) (recover.RunStatus, error) {
	return runs.Of(w.stateDir()).Find(name)
}

// RunReport is part of history.
func (w wired) RunReport(_ context.Context, name string) (recover.RunReport, error) {
	return runs.Of(w.stateDir()).Report(name)
}

// Keeper is part of history.
func (w wired) Keeper(ctx context.Context) (pin.KeeperStatus, error) {
	return pin.Keeper(ctx, w.stateDir())
}

// VerifyBackup is part of history.
func (w wired) VerifyBackup(ctx context.Context, dir, owner string) (verify.Report, error) {
	return verify.Backup(ctx, dir, verify.Options{Progress: w.engine.Progress, AcceptOwner: owner})
}

// Unclaimed is part of history.
func (w wired) Unclaimed() ([]leftover.Staging, error) { return leftover.Unclaimed(w.engine.Settings) }

// KeeperHolds is part of history.
func (w wired) KeeperHolds(ctx context.Context, uuids []string) ([]leftover.Hold, error) {
	return leftover.Holds(ctx, w.engine.Settings, uuids)
}

// KeeperRelease is part of history.
func (w wired) KeeperRelease(ctx context.Context, holds []leftover.Hold, last bool) ([]leftover.Hold, error) {
	return leftover.Release(ctx, w.engine.Settings, holds, last)
}

// Guard is part of guards.
func (w wired) Guard(ctx context.Context) (guard.Status, error) { return guard.Ask(ctx, w.stateDir()) }

// GuardRelease is part of guards.
func (w wired) GuardRelease(ctx context.Context, uuid string) error {
	return guard.ReleaseByHand(ctx, w.stateDir(), uuid)
}

// NewGuard is part of guards.
func (w wired) NewGuard(o guard.Options, shelf guard.Shelf, inherited []*os.File) (guardian, error) {
	deps := guard.Deps{Settings: w.engine.Settings, Hypervisor: w.engine.Hypervisor}
	if w.root != nil {
		deps.FindRoot = w.root.Refresh
	}
	g, err := guard.New(deps, o, shelf, inherited)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Check is part of guards.
func (w wired) Check(ctx context.Context, o check.Options, scan func(context.Context) (recover.Report, error)) (check.Report, error) {
	return check.Make(ctx, check.SourcesOf(w.engine.Settings, scan), o)
}

// guardOptions returns the guard's part of the configuration, with a sign-in of its
// own. Credentials of a cloud admin are refused: the guard needs few rights, and its
// credentials are stored on every host.
func guardOptions(c config.Config) guard.Options {
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
