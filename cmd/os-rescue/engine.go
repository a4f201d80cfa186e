package main

import (
	"context"
	"os"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/recover"
)

// engine has the methods of recover.Engine that the commands use.
type engine interface {
	Scan(ctx context.Context) (recover.Report, error)
	Check(ctx context.Context, o recover.CheckOptions, scan func(context.Context) (recover.Report, error)) (recover.CheckReport, error)
	DryRun(ctx context.Context, command recover.Command, o recover.Options) (recover.Plan, error)
	Prepare(ctx context.Context, command recover.Command, o recover.Options) (session, error)
	PrepareResume(ctx context.Context, run string, offline bool) (session, error)
	Runs(ctx context.Context) ([]recover.RunStatus, error)
	Run(ctx context.Context, id string) (recover.RunStatus, error)
	Undo(ctx context.Context, run string, lock *os.File) error
	RunReport(ctx context.Context, id string) (recover.RunReport, error)
	Keeper(ctx context.Context) (recover.KeeperStatus, error)
	Guard(ctx context.Context) (recover.GuardStatus, error)
	GuardRelease(ctx context.Context, uuid string) error
	NewGuard(o recover.GuardOptions, shelf recover.Shelf, inherited []*os.File) (guard, error)
}

// guard has the methods of recover.Guard that the commands use.
type guard interface {
	Run(ctx context.Context, ready func()) error
	Configure(o recover.GuardOptions)
	Status() recover.GuardStatus
}

// session has the methods of recover.Session that the commands use.
type session interface {
	Plan() recover.Plan
	Execute(ctx context.Context) (recover.RunReport, error)
	Abandon(ctx context.Context) error
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
