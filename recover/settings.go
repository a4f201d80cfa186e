package recover

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// OwnerRule is a user, a group and a mode. Users and groups are names, whose numbers are
// looked up when needed: a reinstalled package may get other numbers. "+64055" is the
// number itself.
type OwnerRule struct {
	User  string      // a name, or "+" and a number
	Group string      // the same
	Mode  fs.FileMode // permission bits only
}

// OwnerTable lists the owner of each kind of file below the instances directory.
type OwnerTable struct {
	// Auto is true when disks get the owner in the live definition's DAC label instead.
	Auto bool

	InstancesDir OwnerRule // instances/, and its parent
	BaseDir      OwnerRule // instances/_base/
	InstanceDir  OwnerRule // instances/UUID/
	LocksDir     OwnerRule // instances/locks/; the lock files in it get mode 0644
	Base         OwnerRule // images in _base/
	Disk         OwnerRule // disk, disk.eph*, disk.swap
	ConfigDrive  OwnerRule // disk.config
	ConsoleLog   OwnerRule // console.log
	DiskInfo     OwnerRule // disk.info
}

// DebianOwners returns the table of Debian's and Ubuntu's packages.
func DebianOwners() OwnerTable { return ownersOf("nova", "nova", "libvirt-qemu", "kvm", "kvm") }

// RedHatOwners returns the table of the RHEL family's packages, where QEMU runs as
// qemu:qemu (the default of /etc/libvirt/qemu.conf there).
func RedHatOwners() OwnerTable { return ownersOf("nova", "nova", "qemu", "qemu", "qemu") }

// KollaOwners returns the table of Kolla's containers, whose qemu.conf has QEMU run as
// nova:nova and keep the console logs itself (kolla-ansible's
// ansible/roles/nova-cell/templates/qemu.conf.j2: user, group, stdio_handler).
func KollaOwners() OwnerTable { return ownersOf("nova", "nova", "nova", "nova", "nova") }

func ownersOf(nova, novaGroup, qemu, qemuGroup, baseGroup string) OwnerTable {
	dir := OwnerRule{nova, novaGroup, 0o755}
	return OwnerTable{
		InstancesDir: dir,
		BaseDir:      dir,
		InstanceDir:  dir,
		LocksDir:     dir,
		Base:         OwnerRule{nova, baseGroup, 0o644},
		Disk:         OwnerRule{qemu, qemuGroup, 0o644},
		ConfigDrive:  OwnerRule{qemu, qemuGroup, 0o644},
		ConsoleLog:   OwnerRule{nova, novaGroup, 0o660},
		DiskInfo:     OwnerRule{nova, novaGroup, 0o644},
	}
}

// Settings describes the host. The defaults are those of DefaultSettings, not the zero
// values of the fields.
type Settings struct {
	Host          string // this compute service's name
	InstancesPath string // absolute
	// InstancesPathFrom says where InstancesPath was set, in words.
	InstancesPathFrom string
	// InstancesPathIsNovas is true when Nova's user can change that setting, and InstancesPath is
	// not the packages' own: root changes no directory of another owner's by that word.
	InstancesPathIsNovas bool
	// ComputeIDPaths are where Nova looks for its compute_id, the one that it would write
	// itself (in state_path) first.
	ComputeIDPaths []string
	StateDir       string // absolute; created 0700
	// RunDir is where the locks on instances directories are, in the host's file system
	// for what ends with a boot (hier(7)). Its parent exists.
	RunDir string
	// Root is the "/" in which the instances' paths are looked up and published: this
	// process's own, or one that leads into another mount namespace (package hostroot).
	Root string
	// RootName says whose Root is, in words; empty for this process's own.
	RootName string
	Owners   OwnerTable // what published files and new directories get

	Headroom      float64       // share of a file system that stays free, 0 to 1
	FreezeTimeout time.Duration // for the guest agent's freeze and thaw, each; 0 never freezes
	StartTimeout  time.Duration // until a started domain's QEMU must hold the published files
	RebootTimeout time.Duration // until Nova must be done with a hard reboot
	Watch         time.Duration // how long a domain started beside a running nova-compute is watched

	// UndoCommand starts the process that undoes a run if that is killed: this
	// program, with the arguments that make it the witness of package run. The name of
	// the run, and how many files the lock on the instances directory has, are added. If it is
	// empty, a killed run stays as it is until resume.
	UndoCommand []string

	// KeeperCommand starts a keeper: this program, with the arguments that make it one.
	KeeperCommand []string
}

// DefaultSettings returns the settings of a Debian compute node.
func DefaultSettings() Settings {
	return Settings{
		InstancesPath:     "/var/lib/nova/instances",
		InstancesPathFrom: "the defaults",
		ComputeIDPaths:    []string{"/var/lib/nova/" + ComputeIDName, "/etc/nova/" + ComputeIDName},
		StateDir:          "/var/lib/os-rescue",
		RunDir:            "/run/os-rescue",
		Root:              "/",
		Owners:            DebianOwners(),
		Headroom:          0.05,
		FreezeTimeout:     10 * time.Second,
		StartTimeout:      30 * time.Second,
		RebootTimeout:     5 * time.Minute,
		Watch:             time.Minute,
	}
}

// Selection selects the instances of a command. Exactly one of Instances, Project and
// All must be used; Validate checks that.
type Selection struct {
	Instances []string `json:"instances,omitempty"` // UUIDs or domain names
	Project   string   `json:"project,omitempty"`   // ID or name
	All       bool     `json:"all,omitempty"`       // every instance of the host
	// ProjectDomain is the name or ID of the Keystone domain of Project.
	ProjectDomain string `json:"project_domain,omitempty"`
	// Host selects only instances that Nova has on that compute host; empty for any.
	Host string `json:"host,omitempty"`
}

// Validate returns ErrUsage when the selection names nothing or contradicts itself.
func (s Selection) Validate() error {
	n := 0
	if len(s.Instances) > 0 {
		n++
	}
	if s.Project != "" {
		n++
	}
	if s.All {
		n++
	}
	if n != 1 {
		return fmt.Errorf("%w: give exactly one of --project, --instance and --all", ErrUsage)
	}
	if s.ProjectDomain != "" && s.Project == "" {
		return fmt.Errorf("%w: --project-domain needs --project: give both", ErrUsage)
	}
	return nil
}

// Mode is the way to bring back a lost disk that the guest writes.
type Mode string

// The modes.
const (
	// ModeReboot: suspend, copy, prove, destroy, publish, hard reboot.
	ModeReboot Mode = "reboot"
	// ModeLive: mirror while the guest runs, then move it onto the mirror.
	ModeLive Mode = "live"
	// ModeAuto: ModeLive for an instance that can be rescued live, else ModeReboot.
	ModeAuto Mode = "auto"
)

// Verify is the way to prove a copy.
type Verify string

// The proofs. Mode reboot knows only VerifyFull.
const (
	// VerifyDefault is VerifyFull in mode reboot. In mode live it is VerifyRunning if the
	// hypervisor supports it and the guest's QEMU is known to survive it; else VerifyFull if
	// that fits into LiveOptions.MaxPause; else VerifyStructure, but a raw disk is left alone then.
	VerifyDefault Verify = ""
	// VerifyFull compares source and copy in full while the guest is suspended.
	VerifyFull Verify = "full"
	// VerifyRunning compares source and copy in full while the guest runs, as they were
	// when it was moved onto the copy. Its pause does not grow with the disk. Where that
	// can't be done it is VerifyDefault.
	VerifyRunning Verify = "running"
	// VerifyStructure checks the copy as an image and compares nothing: of a raw disk that
	// is no proof at all.
	VerifyStructure Verify = "structure"
)

// LiveOptions are an operator's wishes for mode live.
type LiveOptions struct {
	// MaxPause is how long a comparison may keep the guest suspended, unless VerifyFull
	// was asked for.
	MaxPause time.Duration `json:"max_pause,omitempty"`
	// BytesPerSecond limits the mirror of each disk; 0 is no limit.
	BytesPerSecond uint64 `json:"bytes_per_second,omitempty"`
	// Timeout is how long to wait until an instance's mirrors are ready before its rescue
	// is abandoned; 0 is for ever.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// DefaultMaxPause is LiveOptions.MaxPause where it is 0.
const DefaultMaxPause = 30 * time.Second

// LongestPause returns MaxPause, or its default.
func (o LiveOptions) LongestPause() time.Duration { return cmp.Or(o.MaxPause, DefaultMaxPause) }

// Options are an operator's wishes for a run, a backup or a restore.
type Options struct {
	Selection Selection `json:"selection"` // of the instances
	Parallel  int       `json:"parallel"`  // instances at a time, at least 1
	// ReplaceExisting moves a different file at a path aside, where a run would refuse.
	ReplaceExisting bool `json:"replace_existing,omitempty"`
	// BackupDir is the source of a restore, the target of a backup, and the place for
	// additional copies of a rescue.
	BackupDir string `json:"backup_dir,omitempty"`
	// AcceptOwner is a user whose files in BackupDir count as root's do; empty for none.
	AcceptOwner string `json:"accept_owner,omitempty"`
	// KeepPaused leaves the guests suspended after a backup.
	KeepPaused bool `json:"keep_paused,omitempty"`
	// AcceptOlder restores a backup although the guest may have written since.
	AcceptOlder bool `json:"accept_older,omitempty"`
	// NoReboot leaves a domain off after its files are published.
	NoReboot bool `json:"no_reboot,omitempty"`
	// AcceptShared works offline on a file system that other hosts may write.
	AcceptShared bool `json:"accept_shared,omitempty"`
	// Offline works without Nova: it selects by the domains' metadata and starts
	// instances through libvirt.
	Offline bool `json:"offline,omitempty"`
	// AcceptLoss names what a hard reboot may lose (Domain.Losses).
	AcceptLoss []string `json:"accept_loss,omitempty"`
	Hints
	// Mode is that of a rescue; empty is ModeReboot.
	Mode   Mode        `json:"mode,omitempty"`
	Verify Verify      `json:"verify,omitempty"` // how to prove a copy
	Live   LiveOptions `json:"live,omitzero"`    // for ModeLive and ModeAuto
	// Reboot is for CommandReboot alone.
	Reboot RebootOptions `json:"reboot,omitzero"`
}

// Hints are what the operator tells a scan that it can't find out.
type Hints struct {
	// Holders are the PIDs of processes that hold files of instances whose QEMU
	// has ended.
	Holders []int `json:"holders,omitempty"`
	// Map says which open file of a QEMU is the file of a path, where several could be.
	Map []Mapping `json:"map,omitempty"`
}

// Mapping says that a descriptor of a process is the file of a path.
type Mapping struct {
	Path string `json:"path"` // as the domain's definition names it
	PID  int    `json:"pid"`  // of the domain's QEMU
	FD   int    `json:"fd"`   // the descriptor's number in that process
}

// ParseMapping parses PATH=PID:FD. The error wraps ErrUsage.
func ParseMapping(text string) (Mapping, error) {
	at := strings.LastIndexByte(text, '=')
	bad := fmt.Errorf("%w: --map is %q: it must be PATH=PID:FD, as a scan names it", ErrUsage, text)
	if at < 0 || !strings.HasPrefix(text, "/") {
		return Mapping{}, bad
	}
	pid, fd, ok := strings.Cut(text[at+1:], ":")
	m := Mapping{Path: text[:at]}
	var errs [2]error
	m.PID, errs[0] = strconv.Atoi(pid)
	m.FD, errs[1] = strconv.Atoi(fd)
	if !ok || errors.Join(errs[:]...) != nil || m.PID < 1 || m.FD < 0 {
		return Mapping{}, bad
	}
	return m, nil
}

// RebootOptions are an operator's wishes for hard reboots after an incident.
type RebootOptions struct {
	// States are the statuses of the instances to reboot; empty for ACTIVE.
	States []string `json:"states,omitempty"`
	// BatchSize instances are rebooted before a wait of BatchWait; 0 is all of them.
	BatchSize int           `json:"batch_size,omitempty"`
	BatchWait time.Duration `json:"batch_wait,omitempty"` // between two batches
	// Timeout is for each instance; 0 is Settings.RebootTimeout.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Reports are scans of other hosts, which are used instead of a scan of this host.
	// Instances of a report that is older than MaxAge are refused; 0 is no limit.
	Reports []Report      `json:"-"`
	MaxAge  time.Duration `json:"max_age,omitempty"` // of a report; see Reports
	// Remote is true when Reports are used.
	Remote bool `json:"remote,omitempty"`
}

// Statuses returns the statuses of the instances to reboot, in upper case.
func (o RebootOptions) Statuses() []string {
	if len(o.States) == 0 {
		return []string{"ACTIVE"}
	}
	var states []string
	for _, s := range o.States {
		states = append(states, strings.ToUpper(s))
	}
	return states
}

// ModeOf returns the mode of a run of that command. Only a rescue has a mode other than
// ModeReboot.
func (o Options) ModeOf(command Command) Mode {
	if command != CommandRescue {
		return ModeReboot
	}
	return cmp.Or(o.Mode, ModeReboot)
}
