package recover

import (
	"fmt"
	"maps"
	"strings"
	"time"
)

// DomainState is a domain's state as the hypervisor sees it.
type DomainState string

// The states that os-rescue tells apart. Every other state of libvirt
// (shutting down, pmsuspended, blocked) is mapped to StateOther.
const (
	StateRunning DomainState = "running"
	StatePaused  DomainState = "paused"
	StateShutOff DomainState = "shutoff"
	StateCrashed DomainState = "crashed"
	StateOther   DomainState = "other"
)

// PauseReason says why a paused domain is paused.
type PauseReason string

// The reasons that decide whether a paused domain may be touched. Only
// PauseUser is a pause that flushed QEMU's block layer and that nobody else
// will end (virDomainPausedReason in libvirt's include/libvirt/libvirt-domain.h).
const (
	PauseNone      PauseReason = ""
	PauseUser      PauseReason = "user"
	PauseIOError   PauseReason = "ioerror"
	PauseMigration PauseReason = "migration"
	PauseOther     PauseReason = "other"
)

// DiskSource says where a disk's bytes are.
type DiskSource string

// Only a file can be lost by deletion; the others are never os-rescue's business.
const (
	SourceFile    DiskSource = "file"
	SourceBlock   DiskSource = "block"
	SourceNetwork DiskSource = "network"
	SourceNone    DiskSource = "none" // an empty drive
	SourceOther   DiskSource = "other"
)

// Image is one member of a disk's chain: the overlay, or one of its backing files.
type Image struct {
	Source DiskSource `json:"source"`
	Path   string     `json:"path,omitempty"`   // absolute, as QEMU sees it; only for SourceFile and SourceBlock
	Format string     `json:"format,omitempty"` // from libvirt, never probed: qcow2, raw, ...
}

// Disk is one disk of a domain.
type Disk struct {
	Target   string  `json:"target"`   // vda
	Device   string  `json:"device"`   // disk, cdrom, floppy
	ReadOnly bool    `json:"readonly"` // <readonly/>, and every cdrom
	Chain    []Image `json:"chain"`    // the overlay first, the last backing file last; never empty
	// ChainKnown is true when libvirt named the whole chain down to its end
	// (a terminating empty <backingStore/>): always for a live domain, seldom
	// for one that is shut off.
	ChainKnown bool `json:"chain_known"`
	// Transient or otherwise unusual features that keep os-rescue's hands off,
	// in words ("external data store", "slices"); empty for what Nova makes.
	Unusual []string `json:"unusual,omitempty"`
	// DACLabel is the disk's own <seclabel model="dac"> if it has one: "uid:gid"
	// or "+uid:+gid" or names; empty otherwise.
	DACLabel string `json:"dac_label,omitempty"`
}

// NovaMetadata is what Nova wrote into the domain's <metadata>
// (nova/virt/libvirt/config.py, LibvirtConfigGuestMetaNovaInstance).
type NovaMetadata struct {
	Name        string `json:"name"`
	Flavor      string `json:"flavor,omitempty"`
	ProjectID   string `json:"project_id"`
	ProjectName string `json:"project_name"`
	UserID      string `json:"user_id,omitempty"`
}

// Domain is one domain of this host, as read from the hypervisor in one look.
type Domain struct {
	UUID        string      `json:"uuid"` // lower case, with dashes; it is the instance's UUID
	Name        string      `json:"name"` // instance-0000002a
	State       DomainState `json:"state"`
	PauseReason PauseReason `json:"pause_reason,omitempty"`
	Persistent  bool        `json:"persistent"`

	// PID is what the hypervisor's pid file says; 0 when the domain is not
	// active. It is a claim: package recover checks it against /proc.
	PID int `json:"pid,omitempty"`

	Disks       []Disk   `json:"disks"`
	ConsoleLogs []string `json:"console_logs,omitempty"` // absolute paths of <log file> and <console type='file'>
	NVRAM       string   `json:"nvram,omitempty"`
	NVRAMFormat string   `json:"nvram_format,omitempty"` // raw when libvirt does not say

	Nova *NovaMetadata `json:"nova,omitempty"` // nil when the domain is not Nova's

	// Job names the domain job under way ("migration out", "save", "dump"),
	// BlockJobs the disks that have a block job, each with its kind:
	// {"vda": "copy"}. Both empty when nothing is under way.
	Job       string            `json:"job,omitempty"`
	BlockJobs map[string]string `json:"block_jobs,omitempty"`

	// Losses are the things that a hard reboot through Nova can't keep.
	Losses []string `json:"losses,omitempty"`

	// ImageLabel is the domain's SELinux image label, DACLabel its DAC base
	// label ("+64055:+107"), both from the live XML; empty when there is none.
	ImageLabel string `json:"image_label,omitempty"`
	DACLabel   string `json:"dac_label,omitempty"`
}

// What a hard reboot through Nova can't keep, for Domain.Losses and
// Options.AcceptLoss (nova/virt/libvirt/driver.py: it undefines the domain with
// its NVRAM, makes it anew, and discards a saved memory image).
const (
	LossNVRAM       = "nvram"
	LossVTPM        = "vtpm"
	LossVPMEM       = "vpmem"
	LossSavedMemory = "saved-memory"
)

// BlockCounters are the write statistics of one disk since its QEMU started.
type BlockCounters struct {
	WriteRequests int64 `json:"write_requests"`
	WriteBytes    int64 `json:"write_bytes"`
	FlushRequests int64 `json:"flush_requests"`
	// HighestOffset is the end of the highest byte that this QEMU has written
	// into the top image's file (libvirt's block.N.allocation, QEMU's
	// wr_highest_offset); 0 when unknown. A copy that ends before it is stale.
	HighestOffset uint64 `json:"highest_offset"`
}

// ProcessIdentity tells one life of a process from every other on this host,
// whatever happens to its pid.
type ProcessIdentity struct {
	PID        int    `json:"pid"`
	StartTicks uint64 `json:"start_ticks"` // field 22 of /proc/PID/stat
	BootID     string `json:"boot_id"`     // /proc/sys/kernel/random/boot_id
}

// Snapshot is the state of a domain's writing at one moment: what must be equal
// at two moments for the guest to have provably written nothing in between.
type Snapshot struct {
	Process  ProcessIdentity          `json:"process"`
	Taken    time.Time                `json:"taken"`
	Counters map[string]BlockCounters `json:"counters"` // by disk target
}

// diskOf returns the disk of a domain that a file is the top image of.
func diskOf(d Domain, f FilePlan) (Disk, error) {
	for _, disk := range d.Disks {
		if disk.Target == f.Target && disk.Chain[0].Path == f.Path {
			return disk, nil
		}
	}
	return Disk{}, fmt.Errorf("%w: the domain has no disk %s at %s any more", ErrRefused, f.Target, f.Path)
}

// unchanged is true when the guest has provably written nothing between two
// snapshots.
func (s Snapshot) unchanged(later Snapshot) bool {
	return s.Process == later.Process && maps.EqualFunc(s.Counters, later.Counters, func(a, b BlockCounters) bool {
		return a.WriteRequests == b.WriteRequests && a.WriteBytes == b.WriteBytes
	})
}

// handsOff says why a domain must not be suspended or destroyed now; "" when it may.
func handsOff(d Domain) string {
	switch {
	case d.Job != "":
		return fmt.Sprintf("a job is under way on the domain (%s): wait for it to end", d.Job)
	case len(d.BlockJobs) > 0:
		var jobs []string
		for target, kind := range d.BlockJobs {
			jobs = append(jobs, target+" "+kind)
		}
		return fmt.Sprintf("a block job is under way (%s): wait for it, or end it with virsh blockjob", strings.Join(jobs, ", "))
	case d.State == StatePaused && d.PauseReason == PauseIOError:
		return "QEMU paused the guest for an I/O error: what it could not write is still in its memory; cure the cause (a full file system?) and let it go on with virsh resume"
	case d.State == StatePaused && d.PauseReason == PauseMigration:
		return "the guest is being migrated: wait for the migration to end"
	case d.State == StatePaused && d.PauseReason != PauseUser:
		return "the guest is paused, and not by a user: os-rescue does not know whether its disks were flushed"
	case d.State == StateCrashed && d.PID != 0:
		return "the guest has crashed and its QEMU is kept for a look"
	case d.State == StateOther:
		return "the domain is between two states: scan again in a moment"
	}
	for _, disk := range d.Disks {
		if len(disk.Unusual) > 0 {
			return fmt.Sprintf("disk %s uses what os-rescue can't restore: %s", disk.Target, strings.Join(disk.Unusual, ", "))
		}
	}
	return ""
}
