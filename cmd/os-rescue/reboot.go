package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/scanreport"
	"github.com/os-rescue/os-rescue/recover"
)

// maxParallel is reboot's name for --parallel.
const maxParallel = "max-parallel"

func newReboot(a *app) *cobra.Command {
	f := &runFlags{}
	var reports []string
	cmd := &cobra.Command{
		Use:   "reboot {--project NAME|ID | --instance UUID ... | --all}",
		Short: "Hard reboot instances through Nova after an incident, and wait until they are in service",
		Long:  help("reboot"),
		Example: `  os-rescue reboot --project shop --dry-run
  os-rescue reboot --all --max-parallel 4 --batch-size 20 --batch-wait 1m
  os-rescue reboot --project shop --state ACTIVE --state ERROR --yes
  for h in compute-1 compute-2; do ssh root@$h os-rescue scan --output json; done |
    os-rescue reboot --project shop --scan-report - --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.checkReboot(cmd); err != nil {
				return err
			}
			var err error
			r := &f.options.Reboot
			if r.Remote = len(reports) > 0; r.Remote {
				if slices.Contains(reports, "-") && !f.yes && !f.dryRun {
					return fmt.Errorf("%w: standard input is the scan report, so nobody can be asked: "+
						"add --yes, or --dry-run to see the plan", recover.ErrUsage)
				}
				if r.Reports, err = scanreport.Read(reports, a.stdin); err != nil {
					return err
				}
			}
			return a.execute(cmd, recover.CommandReboot, f)
		},
	}
	r := &f.options.Reboot
	f.addSelectors(cmd, "every instance of this host, or of the hosts of the scan reports")
	f.addNovaSelectors(cmd)
	f.addAcceptLoss(cmd)
	f.addConsent(cmd)
	cmd.Flags().StringSliceVar(&r.States, "state", nil,
		"only instances with this `status`: "+strings.Join(rebootable(), ", ")+"; may be repeated (default ACTIVE)")
	cmd.Flags().Int(maxParallel, 2, "how many instances to reboot at a time")
	cmd.Flags().IntVar(&r.BatchSize, "batch-size", 0, "reboot this many, then wait for --batch-wait (default: all in one go)")
	cmd.Flags().DurationVar(&r.BatchWait, "batch-wait", 0, "how long to wait after each batch: 90s, 5m")
	cmd.Flags().DurationVar(&r.Timeout, "timeout", 0, "how long each instance may take (default: reboot_timeout of the configuration, 5m)")
	cmd.Flags().StringArrayVar(&reports, "scan-report", nil,
		"a `file` with scans of other hosts, as JSON; - is standard input; may be repeated")
	cmd.Flags().DurationVar(&r.MaxAge, "scan-max-age", 10*time.Minute, "how old a scan report may be")
	return cmd
}

// checkReboot checks the flags that only reboot has.
func (f *runFlags) checkReboot(cmd *cobra.Command) error {
	r := &f.options.Reboot
	for n, state := range r.States {
		r.States[n] = strings.ToUpper(state)
		if !slices.Contains(rebootable(), r.States[n]) {
			return fmt.Errorf("%w: --state is %q: it must be one of %s, from which Nova can hard reboot",
				recover.ErrUsage, state, strings.Join(rebootable(), ", "))
		}
	}
	switch {
	case r.BatchSize < 0 || cmd.Flags().Changed("batch-size") && r.BatchSize == 0:
		return fmt.Errorf("%w: --batch-size is %d: it must be 1 or more", recover.ErrUsage, r.BatchSize)
	case r.BatchWait < 0:
		return fmt.Errorf("%w: --batch-wait is %s: it must not be negative", recover.ErrUsage, r.BatchWait)
	case r.BatchWait > 0 && r.BatchSize == 0:
		return fmt.Errorf("%w: --batch-wait comes after each batch: give --batch-size too", recover.ErrUsage)
	case cmd.Flags().Changed("timeout") && r.Timeout < time.Second:
		return fmt.Errorf("%w: --timeout is %s: it must be 1s or more", recover.ErrUsage, r.Timeout)
	case r.MaxAge < time.Second:
		return fmt.Errorf("%w: --scan-max-age is %s: it must be 1s or more", recover.ErrUsage, r.MaxAge)
	}
	return nil
}

// rebootable lists every status from which Nova allows a hard reboot
// (nova/compute/api.py, _hard_reboot_instance), and those of a reboot in progress.
func rebootable() []string {
	return []string{"ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED", "ERROR", "REBOOT", "HARD_REBOOT"}
}
