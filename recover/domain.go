package recover

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"
)

// DomainState is a domain's state as the hypervisor sees it.
type DomainState string

// The states that os-rescue distinguishes. StateOther is any other state of libvirt
// (shutting down, blocked).
const (
	StateRunning     DomainState = "running"
	StatePaused      DomainState = "paused"
	StateShutOff     DomainState = "shutoff"
	StateCrashed     DomainState = "crashed"
	StatePMSuspended DomainState = "pmsuspended" // the guest sleeps (S3), and its QEMU waits to be woken
	StateOther       DomainState = "other"
)

// PauseReason says why a paused domain is paused.
type PauseReason string

// The reasons that decide whether a run may work on a paused domain. Only a pause with
// PauseUser has flushed QEMU's block layer and will not be ended by libvirt itself
// (virDomainPausedReason in libvirt's include/libvirt/libvirt-domain.h).
const (
	PauseNone    PauseReason = ""
	PauseUser    PauseReason = "user"
	PauseIOError PauseReason = "ioerror"
	// PauseMigration is also that of a domain that was started from saved memory and is to stay
	// paused (qemuProcessFinishStartup in libvirt's src/qemu/qemu_process.c): only the job tells.
	PauseMigration PauseReason = "migration"
	PausePostcopy  PauseReason = "postcopy" // a part of its memory is on another host
	PauseOther     PauseReason = "other"
)

// DiskSource says where a disk's bytes are.
type DiskSource string

// Only a file can be lost by deletion. os-rescue never works on the others.
const (
	SourceFile    DiskSource = "file"
	SourceBlock   DiskSource = "block"
	SourceNetwork DiskSource = "network"
	SourceNone    DiskSource = "none" // an empty drive
	SourceOther   DiskSource = "other"
)

// Image is one image of a disk's chain: the overlay, or one of its backing files.
type Image struct {
	Source DiskSource `json:"source"`           // where its bytes are
	Path   string     `json:"path,omitempty"`   // absolute, as QEMU sees it; only for SourceFile and SourceBlock
	Format string     `json:"format,omitempty"` // from libvirt, never probed: qcow2, raw, ...
}

// Disk is one disk of a domain.
type Disk struct {
	Target   string  `json:"target"`   // vda
	Device   string  `json:"device"`   // disk, cdrom, floppy
	ReadOnly bool    `json:"readonly"` // <readonly/>, and every cdrom
	Chain    []Image `json:"chain"`    // the overlay first, the last backing file last; never empty
	// ChainKnown is true when libvirt named the whole chain to its end, which an empty
	// <backingStore/> marks: always for an active domain, seldom for one that is off.
	ChainKnown bool `json:"chain_known"`
	// Optional is true when a start goes on without the disk's file (startupPolicy).
	Optional bool `json:"optional,omitempty"`
	// Requisite is true when a start needs the disk's file, and a start from saved memory drops it
	// (startupPolicy, in libvirt's formatdomain).
	Requisite bool `json:"requisite,omitempty"`
	// Transient is true when the guest's writes go to an overlay that libvirt lays over the disk
	// at every start, and throws away at the guest's end: the top of an active domain's chain.
	Transient bool `json:"transient,omitempty"`
	// Unusual names features with which os-rescue copies none of the disk's files ("external
	// data store", "slices"). Disks that Nova makes have none.
	Unusual []string `json:"unusual,omitempty"`
	// LostAtEnd says what the end of the domain's QEMU would take with it of this disk, or why
	// it may not come back, although none of its files was deleted; empty for most disks.
	LostAtEnd []string `json:"lost_at_end,omitempty"`
	// Encrypted is true when QEMU encrypts an image of the disk (LUKS). A copy of its bytes is
	// as good as any; only QEMU has the key.
	Encrypted bool `json:"encrypted,omitempty"`
	// Unexportable says why the domain's QEMU may end when an export of the disk does ("has an
	// IOThread"); empty for most disks.
	Unexportable string `json:"unexportable,omitempty"`
	// Unmirrorable says why the domain can't be moved onto a mirror of the disk ("is copied on
	// read"); empty for most disks.
	Unmirrorable string `json:"unmirrorable,omitempty"`
	// DACLabel is the disk's own <seclabel model="dac"> if it has one: "uid:gid"
	// or "+uid:+gid" or names; empty otherwise.
	DACLabel string `json:"dac_label,omitempty"`
}

// NovaMetadata is what Nova writes into a domain's <metadata>
// (nova/virt/libvirt/config.py, LibvirtConfigGuestMetaNovaInstance).
type NovaMetadata struct {
	Name        string `json:"name"`              // the display name
	Flavor      string `json:"flavor,omitempty"`  // the flavor's name
	ProjectID   string `json:"project_id"`        // of the project that owns it
	ProjectName string `json:"project_name"`      // as it was when Nova wrote the definition
	UserID      string `json:"user_id,omitempty"` // of the user who created it
}

// Domain is one domain of this host as the hypervisor describes it at one moment.
type Domain struct {
	UUID        string      `json:"uuid"`                   // lower case, with dashes; it is the instance's UUID
	Name        string      `json:"name"`                   // instance-0000002a
	State       DomainState `json:"state"`                  // as the hypervisor sees it
	PauseReason PauseReason `json:"pause_reason,omitempty"` // of a paused domain only
	Crashed     bool        `json:"crashed,omitempty"`      // it is off because its QEMU ended without a word
	Persistent  bool        `json:"persistent"`             // it has a definition that survives its end

	// PID is the content of the hypervisor's pid file; 0 when the domain is not active.
	// It may be stale: whoever relies on it checks it against /proc (package procfs).
	PID int `json:"pid,omitempty"`

	Disks       []Disk   `json:"disks"`                  // in the definition's order
	ConsoleLogs []string `json:"console_logs,omitempty"` // absolute paths of <log file> and <console type='file'>
	NVRAM       string   `json:"nvram,omitempty"`        // absolute path of the UEFI variable store; empty for none
	NVRAMFormat string   `json:"nvram_format,omitempty"` // raw when libvirt does not say

	Boot []BootFile `json:"boot,omitempty"` // for a domain that is booted directly

	// Next is what the next start through libvirt opens instead of Disks, NVRAM and Boot; nil for
	// a domain that is off, of which those are just that, and for a transient one.
	Next *Definition `json:"next,omitempty"`
	// Saved is what the next start through libvirt opens of a domain that is off and has a managed
	// save image: the definition in that image. nil without one.
	Saved *Definition `json:"saved,omitempty"`
	// SavedUnread is why there is no Saved of a managed save image that is there.
	SavedUnread string `json:"saved_unread,omitempty"`

	Nova *NovaMetadata `json:"nova,omitempty"` // nil when the domain is not Nova's

	// Job names the domain job that is under way ("migration out", "save", "dump"); empty
	// when none is.
	Job string `json:"job,omitempty"`
	// BlockJobs has the kind of each block job that is under way, by the disk's target:
	// {"vda": "copy"}.
	BlockJobs map[string]string `json:"block_jobs,omitempty"`

	// Losses names what a hard reboot through Nova would lose (LossNVRAM, ...).
	Losses []string `json:"losses,omitempty"`

	// ImageLabel is the domain's SELinux image label in the live XML; empty when there is
	// none.
	ImageLabel string `json:"image_label,omitempty"`
	// DACLabel is the domain's DAC base label in the live XML ("+64055:+107"); empty when
	// there is none.
	DACLabel string `json:"dac_label,omitempty"`
}

// Definition is what the persistent definition of an active domain names, or the one in the
// saved image of a domain that is off. It may name other files than the domain's other
// definition does: an external snapshot, a disk that was attached to the running guest only, or a
// redefinition changes one of the two.
type Definition struct {
	Disks []Disk     `json:"disks"`           // as Domain.Disks; libvirt seldom knows their chains
	NVRAM string     `json:"nvram,omitempty"` // as Domain.NVRAM
	Boot  []BootFile `json:"boot,omitempty"`  // as Domain.Boot
}

// BootFile is a file that QEMU reads when it starts, and does not keep open.
type BootFile struct {
	Kind string `json:"kind"` // kernel, initrd, dtb
	Path string `json:"path"` // absolute
}

// The kinds of boot files.
const (
	bootKernel = "kernel"
	bootInitrd = "initrd"
	bootDTB    = "dtb"
)

// IsBootFile is true for a path at which a definition of the domain names a boot file.
func (d Domain) IsBootFile(path string) bool {
	files := slices.Clone(d.Boot)
	for _, other := range []*Definition{d.Next, d.Saved} {
		if other != nil {
			files = append(files, other.Boot...)
		}
	}
	return slices.ContainsFunc(files, func(f BootFile) bool { return f.Path == path })
}

// BootFiles returns those that are named.
func BootFiles(kernel, initrd, dtb string) []BootFile {
	var files []BootFile
	for _, f := range []BootFile{{bootKernel, kernel}, {bootInitrd, initrd}, {bootDTB, dtb}} {
		if filepath.IsAbs(f.Path) {
			files = append(files, f)
		}
	}
	return files
}

// What a hard reboot through Nova loses, for Domain.Losses and Options.AcceptLoss: Nova
// undefines the domain with its NVRAM, makes it anew, and discards a saved memory image
// (nova/virt/libvirt/driver.py).
const (
	LossNVRAM       = "nvram"
	LossVTPM        = "vtpm"
	LossVPMEM       = "vpmem"
	LossSavedMemory = "saved-memory"
)

// BlockCounters are the write statistics of one disk since its QEMU started.
type BlockCounters struct {
	WriteRequests int64 `json:"write_requests"` // writes of the guest
	WriteBytes    int64 `json:"write_bytes"`    // bytes of those writes
	FlushRequests int64 `json:"flush_requests"` // flushes of the guest
	// HighestOffset is the end of the highest byte, as an offset in the top image's file,
	// that this QEMU has written (libvirt's block.N.allocation, QEMU's
	// wr_highest_offset); 0 when unknown. A copy that is shorter is out of date.
	HighestOffset uint64 `json:"highest_offset"`
}

// ProcessIdentity identifies one process on this host, even if its PID is used again.
type ProcessIdentity struct {
	PID        int    `json:"pid"`         // 0 for no process
	StartTicks uint64 `json:"start_ticks"` // field 22 of /proc/PID/stat: clock ticks since the boot
	BootID     string `json:"boot_id"`     // /proc/sys/kernel/random/boot_id
}

// Snapshot is the state of a domain's writes at one moment. If it is the same at a later
// moment, the guest has provably written nothing in between.
type Snapshot struct {
	Process  ProcessIdentity          `json:"process"`  // its QEMU
	Taken    time.Time                `json:"taken"`    // the moment
	Counters map[string]BlockCounters `json:"counters"` // by disk target
}

// DiskOf returns the disk of a domain whose top image is that file. ErrRefused when the
// domain has no such disk any more.
func DiskOf(d Domain, f FilePlan) (Disk, error) {
	for _, disk := range d.Disks {
		if disk.Target == f.Target && disk.Chain[0].Path == f.Path {
			return disk, nil
		}
	}
	return Disk{}, fmt.Errorf("%w: the domain no longer has a disk %s at %s", ErrRefused, f.Target, f.Path)
}

// Unexportable says why the domain's QEMU may end when an export of the disks of those files
// does; empty when nothing is known to end it.
func (d Domain) Unexportable(files []FilePlan) string {
	for _, f := range files {
		if disk, err := DiskOf(d, f); err == nil && disk.Unexportable != "" {
			return fmt.Sprintf("disk %s %s", disk.Target, disk.Unexportable)
		}
	}
	return ""
}

// Unchanged is true when the guest has provably written nothing between the two
// snapshots: it is the same QEMU, and its write counters are the same.
func (s Snapshot) Unchanged(later Snapshot) bool {
	return s.Process == later.Process && maps.EqualFunc(s.Counters, later.Counters, func(a, b BlockCounters) bool {
		return a.WriteRequests == b.WriteRequests && a.WriteBytes == b.WriteBytes
	})
}
