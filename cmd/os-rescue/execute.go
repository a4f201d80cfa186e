package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/render"
	"github.com/os-rescue/os-rescue/recover"
)

// execute plans a run, asks for consent, carries the run out and writes its report.
func (a *app) execute(cmd *cobra.Command, command recover.Command, f *runFlags) error {
	options, err := f.check()
	if err != nil {
		return err
	}
	ctx, e, err := a.open(cmd, !options.Reboot.Remote, func(c config.Config) error {
		if command != recover.CommandRescue {
			return nil
		}
		return setMode(&options, c)
	})
	if err != nil {
		return err
	}
	defer e.close()
	options.Parallel = e.config.Parallel
	w := withoutNova{a: a, offline: options.Offline, yes: f.yes, possible: command != recover.CommandReboot}
	if f.dryRun {
		plan, err := attempt(ctx, w, func(offline bool) (recover.Plan, error) {
			if err := setOffline(&options, offline, e.config.Host); err != nil {
				return recover.Plan{}, err
			}
			return e.DryRun(ctx, command, options)
		})
		if err != nil {
			return err
		}
		return a.result(plan, func(w io.Writer) error { return render.WritePlan(w, a.text(cmd, w), plan) })
	}
	s, err := attempt(ctx, w, func(offline bool) (session, error) {
		if err := setOffline(&options, offline, e.config.Host); err != nil {
			return nil, err
		}
		return e.Prepare(ctx, command, options)
	})
	if err != nil {
		return unbegun(ctx, err, "Run the command again")
	}
	return a.carryOut(ctx, cmd, s, f.yes)
}

// unbegun is the error of a run that was stopped while it was prepared, which touches no
// guest and takes back what it had the keeper hold (run.Engine.Prepare). Any other error it
// returns as it is.
func unbegun(ctx context.Context, err error, next string) error {
	if ctx.Err() == nil || !recover.IsInterruption(err) {
		return err
	}
	return &exitError{code: exitInterrupted, text: recover.StoppedBy(ctx) + " while the run was prepared: no guest was touched. " + next}
}

// carryOut asks for consent to a session's plan, executes it and writes the report.
func (a *app) carryOut(ctx context.Context, cmd *cobra.Command, s session, yes bool) (err error) {
	defer s.Close()
	plan := s.Plan()
	if err := consent(ctx, plan, yes, a.interactive(), a.stdin, func() { a.ask(cmd, plan) }); err != nil {
		return joined(err, s.Abandon(context.WithoutCancel(ctx)))
	}
	report, err := s.Execute(ctx)
	a.stderr.Flush(time.Second) // on a terminal the result comes last
	written := a.result(report, func(w io.Writer) error { return render.WriteRun(w, a.text(cmd, w), report, plan.Options) })
	switch {
	case report.Interrupted:
		err = joined(errInterrupted, err)
	case err == nil && report.Unrescued() > 0:
		err = errUnrescued
	}
	return joined(err, written)
}

// ask shows the plan on standard error, so that a person sees it even if standard
// output is redirected.
func (a *app) ask(cmd *cobra.Command, plan recover.Plan) {
	_ = render.WritePlan(a.stderr, a.text(cmd, a.sys.stderr), plan) // a Stderr never fails
	a.prompt("\nType yes to go on: ")
}

// joined is errors.Join, but returns a single error as it is.
func joined(a, b error) error {
	if b == nil {
		return a
	}
	if a == nil {
		return b
	}
	return errors.Join(a, b)
}
