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
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "os-rescue {--project NAME|ID | --instance UUID ... | --all}",
		Short: "Bring back the disks of running instances whose files were deleted under them",
		Long: `os-rescue brings back the disks of running OpenStack instances whose files were
deleted under them, and gets the instances back into service without losing a
byte. It runs on the compute node, as root.

Without a command it rescues the instances that are selected. Each lost file is
held open first, so that its data outlives even a crash of os-rescue. A guest
whose writable disk is lost is paused; its files are copied from what its QEMU
holds and compared in full; only then is its domain destroyed, its files put
back, and the instance hard rebooted through Nova. A guest that lost only files
which it does not write is not even paused.

With --mode live nobody is rebooted: the guest's disks are mirrored into new files
while it runs, and it is suspended only for the moment in which it is moved onto
them. The old disks are compared with the new ones while it runs on. What can't be
rescued live is said before anything begins; --mode auto reboots those.

Nova says which instances are meant and whose they are. Each one is locked there
while it is worked on, so that its owner can't reboot or stop it, and unlocked at
the end. Instances of other hosts are listed with their host: run os-rescue there.
Sign-in is that of every OpenStack client: clouds.yaml with --os-cloud or OS_CLOUD,
or the OS_* variables. Without Nova, --offline works through libvirt alone: the
domains are started by libvirt, and nothing is locked.

Anything that pauses, destroys or reboots a guest shows its plan and asks first.
Where there is no terminal to ask on, it needs --yes. --dry-run shows the plan and
touches nothing. An interrupted run is finished by "os-rescue resume".

A hard reboot makes the domain anew, and loses what is kept nowhere else: UEFI
variables (nvram), the secrets of a virtual TPM (vtpm), persistent memory (vpmem),
the memory of a suspended instance (saved-memory). Such an instance is left alone
unless --accept-loss names what may be lost. With --offline all of that is kept.

Where the guard runs (os-rescue guard, a daemon for every compute node), nothing
that was deleted is lost, also of guests that were off or have ended since: a rescue
takes it from the guard.

If Nova has already ended a guest (its owner hard rebooted it, and it is in ERROR
with "No disk at ..."), but some process still has its files open, --holder PID
names that process: the files are taken from there.

Exit codes: 0 all done or nothing to do, 1 some instances were not rescued
(their data is safe), 2 bad usage or configuration, 3 the environment is
unusable, 130 interrupted and rolled back. "os-rescue check" has those of a
monitoring plugin: see its help.

Configuration: ` + config.DefaultFile + `, overridden by environment
variables (` + config.EnvPrefix + `LOG_LEVEL for log.level), overridden by flags.`,
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
	p.StringVarP(&a.output, "output", "o", "text", "form of the results: text or json")
	p.String("log-level", "info", "trace, debug, info, warn or error")
	p.String("log-format", "auto", "pretty, json, or auto: pretty on a terminal")
	p.String("libvirt-uri", "qemu:///system", "where libvirt is reached")
	p.String("os-cloud", "", "the `entry` of clouds.yaml to sign in with (default: OS_CLOUD, or the OS_* variables)")
	p.BoolVar(&a.noColor, "no-color", false, "no colours, as with NO_COLOR in the environment")
	p.BoolVarP(&a.quiet, "quiet", "q", false, "errors only: no progress, no other logs")

	f.addSelectors(cmd, "every instance of this host")
	f.addNovaSelectors(cmd)
	f.addOffline(cmd)
	f.addAcceptLoss(cmd)
	f.addRun(cmd)
	f.addPublish(cmd)
	cmd.Flags().IntSliceVar(&f.options.Holders, "holder", nil, "a process, by its `PID`, that holds files of an instance whose QEMU is gone; may be repeated")
	cmd.Flags().StringVar(&f.options.BackupDir, "backup-dir", "", "also keep a backup of every file in this `directory`, as \"os-rescue backup\" does")
	f.addMode(cmd)

	cmd.AddCommand(newScan(a), newCheck(a), newGuard(a), newBackup(a), newRestore(a), newReboot(a), newResume(a), newStatus(a), newReport(a), newVersion(a), newMan(a), newKeeper(a), newUndo(a))
	return cmd
}
