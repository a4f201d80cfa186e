package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/recover"
)

// newRoot returns the command that rescues, with all others below it.
func newRoot(a *app) *cobra.Command {
	a.endings = map[*cobra.Command]ending{}
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "os-rescue {--project NAME|ID | --instance UUID ... | --all}",
		Short: "Bring back the disks of running instances whose files were deleted under them",
		Long:  help("os-rescue"),
		Example: `  os-rescue scan
  os-rescue --project shop --dry-run
  os-rescue --project shop
  os-rescue --project shop --mode live
  os-rescue --all --offline
  os-rescue --instance 6f0c1f4e-3d53-4c9c-8a83-0d5b0c1f9a11 --yes --backup-dir /mnt/backup
  os-rescue --instance 6f0c1f4e-3d53-4c9c-8a83-0d5b0c1f9a11 --holder 4711`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains([]string{"text", "json"}, a.output) {
				return fmt.Errorf("--output is %q: it must be text or json", a.output)
			}
			a.began = true
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.execute(cmd, recover.CommandRescue, f)
		},
	}
	p := cmd.PersistentFlags()
	p.StringVar(&a.configFile, "config", "", "configuration file (default "+config.DefaultFile+")")
	p.StringVarP(&a.output, "output", "o", "text", "output format: text or json")
	p.String("log-level", "info", "trace, debug, info, warn or error")
	p.String("log-format", "auto", "pretty, json, or auto: pretty on a terminal")
	p.String("libvirt-uri", "qemu:///system", "the `URI` of libvirt")
	p.String("os-cloud", "", "the `entry` of clouds.yaml to sign in with (default: OS_CLOUD, or the OS_* variables)")
	p.BoolVar(&a.noColor, "no-color", false, "no colours, as with NO_COLOR in the environment")
	p.BoolVarP(&a.quiet, "quiet", "q", false, "errors only: no progress, no other logs")

	f.addSelectors(cmd, "every instance of this host")
	f.addNovaSelectors(cmd)
	f.addOffline(cmd)
	f.addAcceptLoss(cmd)
	f.addRun(cmd)
	f.addPublish(cmd)
	f.addHolder(cmd)
	f.maps.add(cmd)
	cmd.Flags().StringVar(&f.options.BackupDir, "backup-dir", "",
		"also keep a backup of every file in this `directory`, as \"os-rescue backup\" does")
	addAcceptOwner(cmd, &f.options.AcceptOwner)
	f.addMode(cmd)

	cmd.AddCommand(
		newScan(a), newCheck(a), newGuard(a), newBackup(a), newRestore(a), newReboot(a), newResume(a), newStatus(a), newReport(a),
		newVersion(a), newMan(a), newKeeper(a), newUndo(a),
	)
	return cmd
}
