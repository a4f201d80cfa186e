package main

import (
	"context"
	"os"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/leftover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/verify"
)

// engine is what the commands use of the packages below recover.
type engine struct {
	scanner
	runner
	history
	guards
}

// scanner scans this host.
type scanner interface {
	Scan(ctx context.Context, hints recover.Hints) (recover.Report, error)
}

// runner plans runs, carries them out and finishes them.
type runner interface {
	DryRun(ctx context.Context, command recover.Command, o recover.Options) (recover.Plan, error)
	Prepare(ctx context.Context, command recover.Command, o recover.Options) (session, error)
	PrepareResume(ctx context.Context, run string, offline bool) (session, error)
	PrepareAbandon(ctx context.Context, run string, offline bool) (abandonment, error)
	Undo(ctx context.Context, run string, lock *os.File, tree []*os.File) error
}

// history reads what runs have left behind: their journals, what the keeper holds, backups.
type history interface {
	Runs(ctx context.Context) ([]recover.RunStatus, error)
	Run(ctx context.Context, name string) (recover.RunStatus, error)
	RunReport(ctx context.Context, name string) (recover.RunReport, error)
	Keeper(ctx context.Context) (pin.KeeperStatus, error)
	VerifyBackup(ctx context.Context, dir, owner string) (verify.Report, error)
	Unclaimed() ([]leftover.Staging, error)
	KeeperHolds(ctx context.Context, uuids []string) ([]leftover.Hold, error)
	KeeperRelease(ctx context.Context, holds []leftover.Hold, last bool) ([]leftover.Hold, error)
}

// guards asks this host's guard, makes one, and makes the check that builds on it.
type guards interface {
	Guard(ctx context.Context) (guard.Status, error)
	GuardRelease(ctx context.Context, uuid string) error
	NewGuard(o guard.Options, shelf guard.Shelf, inherited []*os.File) (guardian, error)
	Check(ctx context.Context, o check.Options, scan func(context.Context) (recover.Report, error)) (check.Report, error)
}

// guardian has the methods of guard.Guard that the commands use.
type guardian interface {
	Run(ctx context.Context, ready func()) error
	Configure(o guard.Options)
	Status() guard.Status
}

// session has the methods of run.Session that the commands use.
type session interface {
	Plan() recover.Plan
	Execute(ctx context.Context) (recover.RunReport, error)
	Abandon(ctx context.Context) error
	Close()
}

// abandonment has the methods of run.Abandonment that the commands use.
type abandonment interface {
	Plan() recover.Abandonment
	Execute(ctx context.Context, choice recover.AbandonChoice) (recover.Abandonment, error)
	Close()
}

// connector makes an engine. Without libvirt the engine only reads the state
// directory, and libvirt may be down. The caller calls the returned function at
// the end.
type connector func(ctx context.Context, c connection) (engine, func(), error)

// connection has what an engine is made from.
type connection struct {
	config   config.Config
	env      map[string]string
	libvirt  bool
	daemon   bool           // libvirt may be down: nothing waits for it
	global   []string       // the flags that give a child process the same configuration
	logger   zerolog.Logger // for what outlives ctx
	progress recover.Progress
}
