package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/recover"
)

// runFlags are the flags of the commands that make a run. Each command adds
// the ones that it has.
type runFlags struct {
	options recover.Options
	dryRun  bool
	yes     bool
	maps    mapFlag

	allIfNone bool // no selector selects everything
}

func (f *runFlags) addSelectors(cmd *cobra.Command, all string) {
	s := &f.options.Selection
	cmd.Flags().StringVar(&s.Project, "project", "", "the instances of this project, by `name` or ID")
	cmd.Flags().StringSliceVar(&s.Instances, "instance", nil, "this instance, by `UUID`; may be repeated")
	cmd.Flags().BoolVar(&s.All, "all", false, all)
}

// addNovaSelectors adds the selectors that need Nova and Keystone.
func (f *runFlags) addNovaSelectors(cmd *cobra.Command) {
	s := &f.options.Selection
	cmd.Flags().StringVar(&s.ProjectDomain, "project-domain", "",
		"the Keystone `domain` of --project, if several have a project of that name")
	cmd.Flags().StringVar(&s.Host, "host", "", "only instances on this compute `host`")
}

func (f *runFlags) addOffline(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.options.Offline, "offline", false,
		"work through libvirt alone: never ask Nova, lock nothing, start the domains through libvirt")
}

func (f *runFlags) addAcceptLoss(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.options.AcceptLoss, "accept-loss", nil,
		"the `kind` of state that may be lost, in a hard reboot through Nova or as it was deleted from the disk: "+
			strings.Join(losses(), ", ")+"; may be repeated")
}

func (f *runFlags) addRun(cmd *cobra.Command) {
	cmd.Flags().Int("parallel", 2, "how many instances to work on at a time")
	f.addConsent(cmd)
}

func (f *runFlags) addConsent(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "show the plan and touch nothing")
	addYes(cmd, &f.yes)
}

func addYes(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVarP(yes, "yes", "y", false, "do not ask")
}

func (f *runFlags) addPublish(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.options.ReplaceExisting, "replace-existing", false,
		"move aside (never delete) a different file that stands where a lost file belongs")
	cmd.Flags().BoolVar(&f.options.AcceptShared, "accept-shared", false,
		"with --offline: confirm that no other host runs the instance, although its files are on a file system that other hosts may write")
	cmd.Flags().BoolVar(&f.options.NoReboot, "no-reboot", false, "put the files back and leave the domains off")
}

func (f *runFlags) addHolder(cmd *cobra.Command) {
	cmd.Flags().IntSliceVar(&f.options.Holders, "holder", nil,
		"a process, by `PID`, that holds files of an instance whose QEMU is gone, and can't write them or is stopped; may be repeated")
}

// addMode adds how a rescue works. The configuration can set the same.
func (f *runFlags) addMode(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("mode", "reboot",
		"how to bring a lost disk back: reboot; live: while the guest runs on; auto: live where possible, else reboot")
	flags.String("verify", "", "how to verify a live rescue: "+
		"running (compare in full while the guest runs on), full (compare while it is suspended), "+
		"structure (check qcow2 disks as images, compare nothing; of a raw disk that is no proof) "+
		"(default: the first of these that the host and the guest's disks can do, full only within --max-pause, "+
		"structure of raw disks only if asked for)")
	flags.String(maxPause, "30s", "the longest suspend for a comparison, unless --verify full asks for one")
	flags.String("bandwidth", "0", "at most this many `bytes` per second are copied of each disk in a live rescue, like 100M; 0 is no limit")
	flags.String("timeout", "0s", "abandon a live rescue if its disks are not mirrored in this time; 0s is no limit")
}

// maxPause is a flag that only a rescue has.
const maxPause = "max-pause"

// setMode takes the mode of a rescue, and what belongs to it, from the configuration.
// ErrUsage if they contradict each other or the flags.
func setMode(o *recover.Options, c config.Config) error {
	o.Mode, o.Verify, o.Live = c.Mode, c.Verify, c.Live
	switch {
	case o.Mode == recover.ModeReboot && o.Verify != recover.VerifyDefault && o.Verify != recover.VerifyFull:
		return fmt.Errorf("%w: verify is %q, but mode reboot compares in full and can do nothing else: use --verify full",
			recover.ErrUsage, o.Verify)
	case o.Mode == recover.ModeLive && o.NoReboot:
		return fmt.Errorf("%w: --no-reboot leaves domains off, but mode live never ends one: use --mode auto or --mode reboot", recover.ErrUsage)
	}
	return nil
}

// addAcceptOwner adds the flag for backups that can't be root's.
func addAcceptOwner(cmd *cobra.Command, owner *string) {
	cmd.Flags().StringVar(owner, "accept-owner", "",
		"take the word of this `user`, as root's, for the backup: for a share that can't be root's. Definitions are not taken from it")
}

// needs makes the flag of a directory mandatory.
func (f *runFlags) needs(cmd *cobra.Command, flag string) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.options.BackupDir == "" {
			return fmt.Errorf("%w: give --%s DIR", recover.ErrUsage, flag)
		}
		return run(cmd, args)
	}
}

// check returns the options, checked as far as flags alone can be.
func (f *runFlags) check() (recover.Options, error) {
	o := f.options
	if f.allIfNone && len(o.Selection.Instances) == 0 && o.Selection.Project == "" {
		o.Selection.All = true
	}
	if err := o.Selection.Validate(); err != nil {
		return o, err
	}
	for _, loss := range o.AcceptLoss {
		if !slices.Contains(losses(), loss) {
			return o, fmt.Errorf("%w: --accept-loss is %q: it must be one of %s", recover.ErrUsage, loss, strings.Join(losses(), ", "))
		}
	}
	mappings, err := f.maps.parse()
	if err != nil {
		return o, err
	}
	o.Map = mappings
	for _, pid := range o.Holders {
		if pid < 1 {
			return o, fmt.Errorf("%w: --holder is %d: it must be the PID of a process", recover.ErrUsage, pid)
		}
	}
	if o.BackupDir != "" {
		dir, err := filepath.Abs(o.BackupDir)
		if err != nil {
			return o, fmt.Errorf("%w: %s: %w", recover.ErrUsage, o.BackupDir, err)
		}
		o.BackupDir = dir // resume may be started in another directory
	}
	return o, nil
}

// setOffline says whether Nova is asked. ErrUsage for a selection that needs Nova.
func setOffline(o *recover.Options, offline bool, host string) error {
	o.Offline = offline
	switch s := o.Selection; {
	case offline && s.ProjectDomain != "":
		return fmt.Errorf("%w: --project-domain can't be looked up without Nova: give the ID of the project", recover.ErrUsage)
	case offline && s.Host != "" && s.Host != host:
		return fmt.Errorf("%w: --host is %q: without Nova only the instances of this host, %q, are known", recover.ErrUsage, s.Host, host)
	}
	return nil
}

// losses are the kinds of state that --accept-loss may name.
func losses() []string {
	return []string{recover.LossNVRAM, recover.LossVTPM, recover.LossVPMEM, recover.LossSavedMemory}
}

// mapFlag is the flag --map, as given.
type mapFlag []string

func (m *mapFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar((*[]string)(m), "map", nil,
		"`PATH=PID:FD`: this descriptor of a QEMU is the file of that path, where a scan can't tell; may be repeated")
}

// parse returns the mappings. ErrUsage for one that is none.
func (m *mapFlag) parse() ([]recover.Mapping, error) {
	var mappings []recover.Mapping
	for _, text := range *m {
		mapping, err := recover.ParseMapping(text)
		if err != nil {
			return nil, err
		}
		mappings = append(mappings, mapping)
	}
	return mappings, nil
}
