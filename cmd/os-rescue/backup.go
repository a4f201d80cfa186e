package main

import (
	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/recover"
)

func newBackup(a *app) *cobra.Command {
	f := &runFlags{options: recover.Options{Offline: true}}
	cmd := &cobra.Command{
		Use:   "backup {--project NAME|ID | --instance UUID ... | --all} --to DIR",
		Short: "Pause, copy, verify, continue; destroys nothing",
		Long:  help("backup"),
		Example: `  os-rescue backup --project shop --to /mnt/backup
  os-rescue backup --all --to /mnt/backup --keep-paused --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.execute(cmd, recover.CommandBackup, f) },
	}
	f.addSelectors(cmd, "every instance of this host")
	f.addRun(cmd)
	f.maps.add(cmd)
	cmd.Flags().StringVar(&f.options.BackupDir, "to", "", "the `directory` to write to; created if missing")
	cmd.Flags().BoolVar(&f.options.KeepPaused, "keep-paused", false, "leave the guests paused")
	addAcceptOwner(cmd, &f.options.AcceptOwner)
	f.needs(cmd, "to")
	cmd.AddCommand(newBackupVerify(a))
	return cmd
}
