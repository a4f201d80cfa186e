package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/render"
)

func newReport(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "report RUN",
		Short: "Show the result of a run again",
		Long:  help("report"),
		Example: `  os-rescue report 20261122-1804
  os-rescue report 20261122-1804 --output json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, e, err := a.open(cmd, false)
			if err != nil {
				return err
			}
			defer e.close()
			report, err := e.RunReport(ctx, args[0])
			if err != nil {
				return err
			}
			run, err := e.Run(ctx, report.Run)
			if err != nil {
				return err
			}
			return a.result(report, func(w io.Writer) error { return render.WriteRun(w, a.text(cmd, w), report, run.Options) })
		},
	}
}
