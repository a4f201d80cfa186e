package main

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/recover"
)

func newResume(a *app) *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use:   "resume [RUN]",
		Short: "Finish an interrupted run",
		Long: `Goes on where a run ended that was killed, or whose host went down. What was
copied is proven again, a guest that was left paused goes on, and every instance
ends in the state it was found in. Without RUN, all unfinished runs are finished,
the oldest first; with --output json that is one document per run.

RUN is what "os-rescue status" shows, or its beginning.`,
		Example: `  os-rescue resume
  os-rescue resume 20261122-1804 --yes`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, e, err := a.open(cmd, true)
			if err != nil {
				return err
			}
			defer e.close()
			if len(args) > 0 {
				s, err := e.PrepareResume(ctx, args[0])
				if err != nil {
					return err
				}
				return a.carryOut(ctx, cmd, s, yes)
			}
			return a.resumeAll(ctx, cmd, e, yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// resumeAll finishes every interrupted run, the oldest first. It goes on after
// one that could not be finished in full, and stops at what no other could pass.
func (a *app) resumeAll(ctx context.Context, cmd *cobra.Command, e opened, yes bool) error {
	runs, err := e.Runs(ctx)
	if err != nil {
		return err
	}
	found := false
	var unfinished error
	for _, run := range slices.Backward(runs) {
		if run.State != recover.RunInterrupted {
			continue
		}
		s, err := e.PrepareResume(ctx, run.Run)
		if errors.Is(err, recover.ErrNoRun) { // it ended, or had not begun
			a.say("os-rescue: %s", err)
			continue
		}
		if err != nil {
			return joined(err, unfinished)
		}
		found = true
		if err := a.carryOut(ctx, cmd, s, yes); errors.Is(err, errUnrescued) {
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
