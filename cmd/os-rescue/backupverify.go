package main

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/render"
	"github.com/os-rescue/os-rescue/recover"
)

func newBackupVerify(a *app) *cobra.Command {
	var owner string
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Read a backup again in full, and say whether it is whole; changes nothing",
		Long:  help("backup-verify"),
		Example: `  os-rescue backup verify /mnt/backup
  os-rescue backup verify /mnt/backup --output json | jq -r '.instances[] | select(.ok | not) | .uuid'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("%w: %s: %w", recover.ErrUsage, args[0], err)
			}
			ctx, e, err := a.open(cmd, false)
			if err != nil {
				return err
			}
			defer e.close()
			report, err := e.VerifyBackup(ctx, dir, owner)
			if err != nil {
				return err
			}
			a.stderr.Flush(time.Second) // on a terminal the result comes last
			err = a.result(report, func(w io.Writer) error { return render.WriteVerification(w, a.text(cmd, w), report) })
			switch {
			case report.Interrupted:
				return joined(errInterrupted, err)
			case err == nil && !report.OK:
				return errDamaged
			}
			return err
		},
	}
	addAcceptOwner(cmd, &owner)
	return cmd
}
