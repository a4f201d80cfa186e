package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/recover"
)

// resumeFlags are the flags of resume.
type resumeFlags struct {
	yes     bool
	offline bool
	abandonFlags
}

func newResume(a *app) *cobra.Command {
	var f resumeFlags
	cmd := &cobra.Command{
		Use:   "resume [RUN]",
		Short: "Finish an interrupted run, or end it as it is",
		Long:  help("resume"),
		Example: `  os-rescue resume
  os-rescue resume 20261122-1804 --yes
  os-rescue resume --offline
  os-rescue resume --abandon 20261122-1804`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, _, err := f.choice(args); err != nil {
				return err
			}
			ctx, e, err := a.open(cmd, false)
			if err != nil {
				return err
			}
			defer func() { e.close() }()
			runs, err := unfinished(ctx, e, args)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(runs, func(r recover.RunStatus) bool { return !r.Options.Reboot.Remote }) {
				e.close()
				e.close = func() {}
				again, with, err := a.open(cmd, true)
				if err != nil {
					return err
				}
				ctx, e = again, with
			}
			if f.abandon {
				return abandonRun(ctx, a, cmd, e, args[0], f)
			}
			if len(args) > 0 {
				s, err := prepareResume(ctx, a, e, args[0], f)
				if err != nil {
					return err
				}
				return a.carryOut(ctx, cmd, s, f.yes)
			}
			return resumeAll(ctx, a, cmd, e, runs, f)
		},
	}
	addYes(cmd, &f.yes)
	f.add(cmd)
	cmd.Flags().BoolVar(&f.offline, "offline", false, "finish the run through libvirt alone: never ask Nova, leave locks as they are")
	return cmd
}

// unfinished returns the runs to finish, the oldest first: the named one in any
// state, or all that were interrupted.
func unfinished(ctx context.Context, e opened, args []string) ([]recover.RunStatus, error) {
	if err := awaitUndo(ctx, e); err != nil {
		return nil, err
	}
	if len(args) > 0 {
		run, err := e.Run(ctx, args[0])
		return []recover.RunStatus{run}, err
	}
	all, err := e.Runs(ctx)
	var runs []recover.RunStatus
	for _, run := range slices.Backward(all) {
		if run.State == recover.RunInterrupted {
			runs = append(runs, run)
		}
	}
	return runs, err
}

// undoLimit is more than the undo of a killed run takes.
const undoLimit = time.Minute

// awaitUndo waits until killed runs are undone.
func awaitUndo(ctx context.Context, e opened) error {
	for end := time.Now().Add(undoLimit); ; {
		all, err := e.Runs(ctx)
		undoing := slices.ContainsFunc(all, func(r recover.RunStatus) bool { return r.State == recover.RunUndoing })
		if err != nil || !undoing || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func prepareResume(ctx context.Context, a *app, e opened, run string, f resumeFlags) (session, error) {
	w := withoutNova{a: a, offline: f.offline, yes: f.yes, possible: true}
	s, err := attempt(ctx, w, func(offline bool) (session, error) { return e.PrepareResume(ctx, run, offline) })
	if err != nil {
		return nil, unbegun(ctx, err, "The interrupted run is as it was. Go on with: os-rescue resume "+run)
	}
	return s, nil
}

// resumeAll finishes interrupted runs. It continues after a run that left instances
// unrescued, and stops at any other error: the next run would meet it too.
func resumeAll(ctx context.Context, a *app, cmd *cobra.Command, e opened, runs []recover.RunStatus, f resumeFlags) error {
	found := false
	var unfinished error
	for _, run := range runs {
		s, err := prepareResume(ctx, a, e, run.Run, f)
		if errors.Is(err, recover.ErrNoRun) { // it has ended, or had not begun
			a.say("os-rescue: %s", err)
			continue
		}
		if err != nil {
			return joined(err, unfinished)
		}
		found = true
		if err := a.carryOut(ctx, cmd, s, f.yes); errors.Is(err, errUnrescued) {
			unfinished = err
		} else if err != nil {
			return joined(err, unfinished)
		}
	}
	if found {
		return unfinished
	}
	return a.result(recover.RunReport{Host: e.config.Host}, func(w io.Writer) error {
		_, err := io.WriteString(w, "No run is unfinished: there is nothing to do.\n")
		return err
	})
}
