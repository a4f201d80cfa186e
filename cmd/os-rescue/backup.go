package main

import (
	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/recover"
)

func newBackup(a *app) *cobra.Command {
	f := &runFlags{options: recover.Options{Offline: true}}
	cmd := &cobra.Command{
		Use:   "backup {--project NAME|ID | --instance UUID ... | --all} --to DIR",
		Short: "Pause, copy, verify, let go on; destroys nothing",
		Long: `Copies every file of the selected instances, lost or not, into a directory, from
what their QEMU holds. A guest that runs is paused while its files are copied
and compared, and then goes on; with --keep-paused it stays paused, so that the
backup stays the newest there is.

The directory gets UUID/disk, _base/SHA1 and so on, and a manifest.json from
which "os-rescue restore" works, also on another day and with the domain off or
gone. It is made with mode 0700.

It works through libvirt alone and never asks Nova.`,
		Example: `  os-rescue backup --project shop --to /mnt/backup
  os-rescue backup --all --to /mnt/backup --keep-paused --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.execute(cmd, recover.CommandBackup, f) },
	}
	f.addSelectors(cmd, "every instance of this host")
	f.addRun(cmd)
	cmd.Flags().StringVar(&f.options.BackupDir, "to", "", "the `directory` to write to; made if it is not there")
	cmd.Flags().BoolVar(&f.options.KeepPaused, "keep-paused", false, "leave the guests paused")
	f.needs(cmd, "to")
	return cmd
}
