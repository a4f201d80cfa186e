package recover

import (
	"cmp"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// OwnerRule is an owner, a group and a mode, by name: the numbers are looked up
// when they are needed, because a reinstalled package may have other ones.
type OwnerRule struct {
	User  string
	Group string
	Mode  fs.FileMode // permission bits only
}

// OwnerTable says whom each kind of file below the instances directory belongs to.
type OwnerTable struct {
	// Auto takes the owner of disks from the live definition's DAC label instead.
	Auto bool

	InstancesDir OwnerRule // instances/, and what has to be made above it
	BaseDir      OwnerRule // instances/_base/
	InstanceDir  OwnerRule // instances/UUID/
	LocksDir     OwnerRule // instances/locks/, and with mode 0644 the lock files
	Base         OwnerRule // images in _base/
	Disk         OwnerRule // disk, disk.eph*, disk.swap
	ConfigDrive  OwnerRule // disk.config
	ConsoleLog   OwnerRule
	DiskInfo     OwnerRule
}

// DebianOwners is the table of Debian's and Ubuntu's packages.
func DebianOwners() OwnerTable { return ownersOf("nova", "nova", "libvirt-qemu", "kvm", "kvm") }

// RedHatOwners is the table of the RHEL family's packages, where QEMU runs as
// qemu:qemu (/etc/libvirt/qemu.conf's default there).
func RedHatOwners() OwnerTable { return ownersOf("nova", "nova", "qemu", "qemu", "qemu") }

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

// Settings is what an Engine must know of its host. The zero value of a field
// is not its default: DefaultSettings has those.
type Settings struct {
	Host          string // this compute service's name
	InstancesPath string // absolute
	StateDir      string // absolute; created 0700
	Root          string // the "/" below which paths are published: "/", or /proc/PID/root of another mount namespace
	Owners        OwnerTable

	Headroom      float64       // share of a file system that stays free, 0 to 1
	FreezeTimeout time.Duration // for the guest agent's freeze and thaw, each; 0 never freezes
	StartTimeout  time.Duration // until a started domain's QEMU must hold the published files
	RebootTimeout time.Duration // until Nova must be done with a hard reboot
	Watch         time.Duration // how long a domain started beside a running nova-compute is watched

	CheckUser  string // the unprivileged user that qemu-img check runs as
	CheckGroup string

	// UndoCommand starts the process that undoes a live run that is killed: this
	// program and the arguments that make it call Outlived and Undo. The run's name
	// is added. Empty: a killed run waits for resume as it is.
	UndoCommand []string

	// KeeperCommand starts a keeper: this program and the arguments that make it one.
	KeeperCommand []string
}

// DefaultSettings returns the settings of a Debian compute node.
func DefaultSettings() Settings {
	return Settings{
		InstancesPath: "/var/lib/nova/instances",
		StateDir:      "/var/lib/os-rescue",
		Root:          "/",
		Owners:        DebianOwners(),
		Headroom:      0.05,
		FreezeTimeout: 10 * time.Second,
		StartTimeout:  30 * time.Second,
		RebootTimeout: 5 * time.Minute,
		Watch:         time.Minute,
		CheckUser:     "nobody",
		CheckGroup:    "nogroup",
	}
}

// Selection says which instances a command is about. Exactly one of the three
// must be used; Validate says so.
type Selection struct {
	Instances []string `json:"instances,omitempty"` // UUIDs
	Project   string   `json:"project,omitempty"`   // ID or name
	All       bool     `json:"all,omitempty"`
	// ProjectDomain is the name or ID of the Keystone domain of Project.
	ProjectDomain string `json:"project_domain,omitempty"`
	// Host leaves out what Nova has on another compute host than this one.
	Host string `json:"host,omitempty"`
}

// Validate returns an error when the selection names nothing or contradicts itself.
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
		return fmt.Errorf("%w: --project-domain says whose --project is meant: give both", ErrUsage)
	}
	return nil
}

// Mode says how a lost disk that the guest writes is brought back.
type Mode string

// The modes.
const (
	// ModeReboot: suspend, copy, prove, destroy, publish, hard reboot.
	ModeReboot Mode = "reboot"
	// ModeLive: mirror while the guest runs, and move it onto the mirror.
	ModeLive Mode = "live"
	// ModeAuto: live where it can be, else reboot.
	ModeAuto Mode = "auto"
)

// Verify says how a copy is proven.
type Verify string

// The proofs. Mode reboot knows VerifyFull alone.
const (
	// VerifyDefault is VerifyFull in mode reboot. In mode live it is VerifyRunning
	// where the hypervisor can; else VerifyFull, if that fits LiveOptions.MaxPause;
	// else VerifyStructure.
	VerifyDefault Verify = ""
	// VerifyFull compares source and copy in full, with the guest suspended.
	VerifyFull Verify = "full"
	// VerifyRunning compares the two in full as they were when the guest was moved
	// onto the copy, while it runs on: its pause does not grow with the disk.
	VerifyRunning Verify = "running"
	// VerifyStructure checks the copy as an image and compares nothing.
	VerifyStructure Verify = "structure"
)

// LiveOptions are an operator's wishes for mode live.
type LiveOptions struct {
	// MaxPause is how long a comparison may keep the guest suspended, when nobody
	// asked for one by name.
	MaxPause time.Duration `json:"max_pause,omitempty"`
	// BytesPerSecond limits the mirror of each disk; 0 is no limit.
	BytesPerSecond uint64 `json:"bytes_per_second,omitempty"`
	// Timeout gives an instance's mirrors up that are not ready by then; 0 never.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// DefaultMaxPause is LiveOptions.MaxPause where it is 0.
const DefaultMaxPause = 30 * time.Second

// Options are an operator's wishes for a run, a backup or a restore.
type Options struct {
	Selection       Selection `json:"selection"`
	Parallel        int       `json:"parallel"` // instances at a time, at least 1
	ReplaceExisting bool      `json:"replace_existing,omitempty"`
	BackupDir       string    `json:"backup_dir,omitempty"` // of a run: kept as well; of a backup: its target; of a restore: its source
	KeepPaused      bool      `json:"keep_paused,omitempty"`
	AcceptOlder     bool      `json:"accept_older,omitempty"`
	NoReboot        bool      `json:"no_reboot,omitempty"`
	AcceptShared    bool      `json:"accept_shared,omitempty"`
	// Offline never asks Nova: selection by the domains' metadata, start by libvirt.
	Offline bool `json:"offline,omitempty"`
	// AcceptLoss names what a hard reboot may lose (Domain.Losses).
	AcceptLoss []string `json:"accept_loss,omitempty"`
	// Holders are the PIDs of processes that hold files of instances whose QEMU
	// has ended.
	Holders []int `json:"holders,omitempty"`
	// Mode is how a rescue goes about it; empty is ModeReboot.
	Mode   Mode        `json:"mode,omitempty"`
	Verify Verify      `json:"verify,omitempty"`
	Live   LiveOptions `json:"live,omitzero"`
	// Reboot is how CommandReboot goes about it.
	Reboot RebootOptions `json:"reboot,omitzero"`
}

// RebootOptions are an operator's wishes for hard reboots after an incident.
type RebootOptions struct {
	// States are the statuses of the instances that are meant; empty for ACTIVE.
	States []string `json:"states,omitempty"`
	// BatchSize instances are rebooted, then nothing for BatchWait; 0 is all.
	BatchSize int           `json:"batch_size,omitempty"`
	BatchWait time.Duration `json:"batch_wait,omitempty"`
	// Timeout is for each instance; 0 is Settings.RebootTimeout.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Reports are scans of other hosts, in whose place this host's own is not
	// made. One that is older than MaxAge is refused.
	Reports []Report      `json:"-"`
	MaxAge  time.Duration `json:"max_age,omitempty"`
	// Remote is true when Reports are used.
	Remote bool `json:"remote,omitempty"`
}

// states returns the statuses of the instances that are meant.
func (o RebootOptions) states() []string {
	if len(o.States) == 0 {
		return []string{"ACTIVE"}
	}
	var states []string
	for _, s := range o.States {
		states = append(states, strings.ToUpper(s))
	}
	return states
}

// modeOf is the mode of a run of a command; only a rescue has another than reboot.
func (o Options) modeOf(command Command) Mode {
	if command != CommandRescue {
		return ModeReboot
	}
	return cmp.Or(o.Mode, ModeReboot)
}
