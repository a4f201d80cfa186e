package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/recover"
)

func newScan(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "scan",
		Short: "Show what is lost on this host, and what can be done; changes nothing",
		Long: `Looks at every instance of this host, the worst first, and at every file that it
has or that its processes hold: is it where it should be, and if not, can its
data still be had? Nothing is changed.

The verdicts:
  lost         files are gone and no process holds them any more
  conflict     something else stands where a lost file belongs
  recoverable  files are deleted, and a process still holds their data
  unknown      it could not be looked at; the reason is given (exit code 1)
  displaced    files were moved, or their path leads elsewhere: not lost
  intact       everything is where it should be
  unaffected   it has no files on this host, only volumes`,
		Example: `  os-rescue scan
  os-rescue scan --output json | jq '.instances[] | select(.verdict == "recoverable") | .uuid'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, e, err := a.open(cmd, true)
			if err != nil {
				return err
			}
			defer e.close()
			report, err := e.Scan(ctx)
			if err != nil {
				return err
			}
			var runs []recover.RunStatus
			if a.output != "json" { // which does not say what is unfinished, so no journal need be read
				if runs, err = e.Runs(ctx); err != nil {
					return err
				}
			}
			err = a.result(report, func(w io.Writer) error {
				text := a.text(cmd, w)
				return errors.Join(text.Scan(w, report), text.Unfinished(w, runs))
			})
			if err != nil {
				return err
			}
			for _, i := range report.Instances {
				if i.Verdict == recover.VerdictUnknown {
					return errUnknown
				}
			}
			return nil
		},
	}
}
