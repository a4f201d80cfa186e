package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/render"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
)

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status [RUN]",
		Short: "Show the runs and their state",
		Long:  help("status"),
		Example: `  os-rescue status
  os-rescue status 20261122-1804
  os-rescue status --output json | jq -r '.runs[] | select(.state == "interrupted") | .run'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, e, err := a.open(cmd, false)
			if err != nil {
				return err
			}
			defer e.close()
			if len(args) > 0 {
				run, err := e.Run(ctx, args[0])
				if err != nil {
					return err
				}
				return a.result(run, func(w io.Writer) error { return render.WriteStatus(w, a.text(cmd, w), run) })
			}
			var overview render.Overview
			if overview.Runs, err = e.Runs(ctx); err != nil {
				return err
			}
			if overview.Keeper, err = e.Keeper(ctx); err != nil {
				return err
			}
			if overview.Unclaimed, err = e.Unclaimed(); err != nil {
				return err
			}
			if overview.Guard, err = e.Guard(ctx); err != nil { // the runs and the keeper do not depend on it
				overview.Guard = guard.Status{Running: true, Fault: recover.InWords(err.Error())}
			}
			overview.Guard.Report = recover.Report{} // "os-rescue scan" shows it
			return a.result(overview, func(w io.Writer) error { return render.WriteOverview(w, a.text(cmd, w), overview) })
		},
	}
}
