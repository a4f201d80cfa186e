package main

import (
	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/recover"
)

func newRestore(a *app) *cobra.Command {
	f := &runFlags{allIfNone: true}
	cmd := &cobra.Command{
		Use:   "restore --from DIR",
		Short: "Put a backup's files back; refuses a backup if the guest has written since",
		Long:  help("restore"),
		Example: `  os-rescue restore --from /mnt/backup --dry-run
  os-rescue restore --from /mnt/backup --instance 6f0c1f4e-3d53-4c9c-8a83-0d5b0c1f9a11
  os-rescue restore --from /mnt/backup --no-reboot --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.execute(cmd, recover.CommandRestore, f) },
	}
	f.addSelectors(cmd, "every instance of the backup")
	f.addOffline(cmd)
	f.addAcceptLoss(cmd)
	f.addRun(cmd)
	f.addPublish(cmd)
	f.addHolder(cmd)
	cmd.Flags().StringVar(&f.options.BackupDir, "from", "", "the `directory` of the backup")
	cmd.Flags().BoolVar(&f.options.AcceptOlder, "accept-older", false, "restore even if the guest may have written since")
	addAcceptOwner(cmd, &f.options.AcceptOwner)
	f.needs(cmd, "from")
	return cmd
}
