package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/render"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/leftover"
	"github.com/os-rescue/os-rescue/recover/pin"
)

func newScan(a *app) *cobra.Command {
	var maps mapFlag
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "Show which files are lost on this host, and what can be done; changes nothing",
		Long:  help("scan"),
		Example: `  os-rescue scan
  os-rescue scan --output json | jq '.instances[] | select(.verdict == "recoverable") | .uuid'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			mappings, err := maps.parse()
			if err != nil {
				return err
			}
			ctx, e, err := a.open(cmd, true)
			if err != nil {
				return err
			}
			defer e.close()
			report, err := e.Scan(ctx, recover.Hints{Map: mappings})
			if err != nil {
				return err
			}
			var runs []recover.RunStatus
			var unclaimed []leftover.Staging
			var keepers pin.KeeperStatus
			if a.output != "json" { // JSON does not list unfinished runs: no journal is read
				if runs, err = e.Runs(ctx); err != nil {
					return err
				}
				if unclaimed, err = e.Unclaimed(); err != nil {
					return err
				}
				if keepers, err = e.Keeper(ctx); err != nil {
					return err
				}
			}
			err = a.result(report, func(w io.Writer) error {
				text := a.text(cmd, w)
				return errors.Join(render.WriteScan(w, text, report), render.WriteUnfinished(w, text, runs),
					render.WriteUnclaimed(w, text, unclaimed), render.WriteUnclaimedHolds(w, text, keepers))
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
	maps.add(cmd)
	return cmd
}
