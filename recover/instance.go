package recover

import (
	"slices"
	"time"
)

// Role says what a file is to its instance.
type Role string

// The roles of files.
const (
	RoleDisk        Role = "disk" // disk, disk.eph0, disk.swap, or a volume in a file
	RoleBacking     Role = "backing"
	RoleConfigDrive Role = "config-drive"
	RoleConsoleLog  Role = "console-log"
	RoleDiskInfo    Role = "disk-info"
	RoleNVRAM       Role = "nvram"
	RoleOther       Role = "other" // held by QEMU but named by no definition: reported and pinned, otherwise left alone
)

// IsKnown is true for a role that a file has.
func (r Role) IsKnown() bool {
	switch r {
	case RoleDisk, RoleBacking, RoleConfigDrive, RoleConsoleLog, RoleDiskInfo, RoleNVRAM, RoleOther:
		return true
	}
	return false
}

// FileState is the state of a file.
type FileState string

// The states of files.
const (
	// FilePresent: the path leads to the held inode, or to a file that nobody needs to hold.
	FilePresent FileState = "present"
	// FileDeleted: the held inode has no name any more, and nothing exists at its path.
	FileDeleted FileState = "deleted"
	// FileDisplaced: the held inode still has a name, but not the right one.
	FileDisplaced FileState = "displaced"
	// FileReplaced: the held inode has no name any more, and another file exists at its path.
	FileReplaced FileState = "replaced"
	// FileMissing: nothing exists at the path, or what is certainly no disk (a directory, an
	// empty file), and nobody holds the file.
	FileMissing FileState = "missing"
	// FileUnknown: it can't be established which open file is this one, or what stands at
	// its path.
	FileUnknown FileState = "unknown"
)

// Remedy says what brings a file back to its path; empty when it is there.
type Remedy string

// The remedies.
const (
	RemedyCopy     Remedy = "copy"      // a run copies the held inode
	RemedyLinkBack Remedy = "link-back" // a run links the held inode, which has another hard link, back
	RemedyMoveBack Remedy = "move-back" // a run, or one mv, moves it back from File.Found
	RemedyMake     Remedy = "make"      // a run makes it anew from the definition; libvirt makes NVRAM at a start
	RemedyReplace  Remedy = "replace"   // a person decides about what stands at its path
	RemedyMount    Remedy = "mount"     // a person mounts its file system, or unmounts what hides it
	RemedyRestore  Remedy = "restore"   // from a backup: nobody has it any more
	RemedyLook     Remedy = "look"      // a person says which open file it is (--map)
)

// Verdict sums up the state of an instance's files.
type Verdict string

// The verdicts.
const (
	VerdictIntact      Verdict = "intact"
	VerdictRecoverable Verdict = "recoverable"
	VerdictDisplaced   Verdict = "displaced"
	VerdictConflict    Verdict = "conflict"
	VerdictLost        Verdict = "lost"
	VerdictUnaffected  Verdict = "unaffected"
	VerdictUnknown     Verdict = "unknown" // it could not be established: the reasons say why
)

// Holder is one descriptor through which a process holds a file.
type Holder struct {
	PID     int    `json:"pid"`     // of the process
	FD      int    `json:"fd"`      // the descriptor's number in that process
	Process string `json:"process"` // the command name: qemu-system-x86, virtlogd, os-rescue (the keeper)
	// Direct is true when the descriptor carries O_DIRECT.
	Direct bool `json:"direct"`
	// Writable is true when the descriptor was opened for writing.
	Writable bool `json:"writable"`
}

// File is one file of an instance, as a scan found it.
type File struct {
	Path      string `json:"path"`      // absolute, as QEMU sees it
	Role      Role   `json:"role"`      // what it is to its instance
	Format    string `json:"format"`    // from libvirt, never probed; empty when nobody tells
	Size      int64  `json:"size"`      // bytes
	Allocated int64  `json:"allocated"` // bytes on the file system, holes not counted
	Device    uint64 `json:"device"`    // of the held inode; 0 when nobody holds it and nothing exists at the path
	Inode     uint64 `json:"inode"`     // as Device
	// Birth tells the inode from others of its number (Inode.Birth); as Device.
	Birth string    `json:"birth,omitempty"`
	State FileState `json:"state"` // where it stands
	// Reason explains the state, where it needs an explanation.
	Reason string `json:"reason,omitempty"`
	Remedy Remedy `json:"remedy,omitempty"` // what brings it back to its path
	// Found is the path where a displaced file is now; empty when that is not known.
	Found   string   `json:"found,omitempty"`
	Target  string   `json:"target,omitempty"`  // the disk it belongs to: vda
	Backing string   `json:"backing,omitempty"` // the path of its backing file, from libvirt
	Holders []Holder `json:"holders"`           // of the inode; never nil
	// Writable is true for a file that the guest writes. Only the loss of such a file
	// justifies a pause of the guest.
	Writable bool `json:"writable"`
	// Proven is true for a file at whose path another one stands with the content of the
	// inode that is still held, because a run has put it back or the scan has compared the
	// two in full: it is replaced, but that is no conflict.
	Proven bool `json:"proven,omitempty"`

	// Split is true for an image that keeps the guest's data in another file, of which it is not
	// known whether it is where the next start looks for it.
	Split bool `json:"-"`

	Temporary   bool   `json:"-"` // it is thrown away when its guest ends: its loss is none
	Unlinked    bool   `json:"-"` // the held inode has no name any more, in any state
	KeptContent string `json:"-"` // the content of a small file, kept by the guard
	GuardHeld   bool   `json:"-"` // named by no definition, but held by the guard to be put back
	OtherRoot   bool   `json:"-"` // its QEMU means another directory by Path than the root in which files are published has
	Unseen      bool   `json:"-"` // it is present for its QEMU, but the next start would not find it: OtherRoot
	Resolved    string `json:"-"` // Path with the links above it followed, as the kernel shows it
}

// Identity identifies the held inode, or what exists at the path if nobody holds it; zero for
// neither.
func (f File) Identity() Inode { return Inode{Device: f.Device, Inode: f.Inode, Birth: f.Birth} }

// Lost is true when the file's held inode has no name any more and no proven copy has
// taken its place. What nobody will need again is not lost.
func (f File) Lost() bool {
	return (f.State == FileDeleted || f.State == FileReplaced) && !f.Proven && !f.Temporary
}

// Unusable is true for a file that stands at its path, and that the next start of a domain
// that is off can't run on: it is empty, or no image of the format that the definition says.
func (f File) Unusable() bool { return f.State == FileUnknown && f.Remedy == RemedyReplace }

// MadeAtStart is true for a missing file that libvirt makes when the domain starts.
func (f File) MadeAtStart() bool {
	return f.State == FileMissing && (f.Role == RoleConsoleLog || f.Role == RoleNVRAM && f.Remedy == RemedyMake)
}

// Overwritten is true for a file that its QEMU has open, and that is no image any more: somebody
// has written over it, or truncated it, in place.
func (f File) Overwritten() bool { return f.State == FileUnknown && f.Remedy == RemedyRestore }

// Instance is one domain of the host as a scan found it.
type Instance struct {
	UUID        string      `json:"uuid"`           // of the domain, and of Nova's instance
	Name        string      `json:"name,omitempty"` // Nova's display name
	Domain      string      `json:"domain"`         // the name of its libvirt domain
	PID         int         `json:"pid"`            // of its QEMU, as libvirt says; 0 when the domain is off
	State       DomainState `json:"state"`          // of its domain
	ProjectID   string      `json:"project_id"`     // empty when neither the domain nor Nova tells
	ProjectName string      `json:"project_name"`   // the same
	Verdict     Verdict     `json:"verdict"`        // what the states of its files mean together
	// Reasons explain the verdict, one sentence each.
	Reasons []string `json:"reasons,omitempty"`
	// Possible says what can still be done for an instance that os-rescue can't rescue
	// as it is, one sentence each.
	Possible []string `json:"possible,omitempty"`
	// Losses names what a hard reboot through Nova would lose (Domain.Losses).
	Losses []string `json:"losses,omitempty"`
	// NextStart names the disks that its next start would not give it as it has them now.
	NextStart []Divergence `json:"next_start,omitempty"`
	// Files are those that its definition names, and deleted ones that are held for it.
	Files []File `json:"files"`
	// Superseded are deleted files that the keeper or the guard holds because the instance has
	// lost them, while its QEMU runs on other ones of which no run has proven that they are
	// copies of these.
	Superseded []File `json:"superseded,omitempty"`
	// Directories are those of its files that are not as the table of owners says. They
	// change no verdict: a run gives them their owners.
	Directories []Directory `json:"directories,omitempty"`

	Definition Domain          `json:"-"` // the domain as the hypervisor, or the guard's record, describes it
	Process    ProcessIdentity `json:"-"` // of its QEMU, checked against /proc; zero when it has none
	// GuardOnly is true when libvirt no longer knows the domain, and the guard's record
	// of the domain was scanned instead.
	GuardOnly bool `json:"-"`
	// NoDomain is true when Nova has it here, and libvirt does not know its domain.
	NoDomain bool `json:"-"`
	// StateBefore is the state in which the guard saw it when its files were deleted; empty
	// when the guard did not see that.
	StateBefore DomainState `json:"-"`
	// Misplaced says why nothing may be published for it: its QEMU, or Nova, means other
	// directories by its paths than Settings say. Empty where that is not so.
	Misplaced string `json:"-"`
	// Withheld says what a guard that is at fault may hold of it that nobody else does; empty for
	// nothing. What its files are is unknown then.
	Withheld string `json:"-"`
	// Server is the instance as Nova has it; nil offline.
	Server *Server `json:"-"`
	// Disagreement says what Nova and the hypervisor disagree about. Such an instance is
	// left alone, even if its files are in order.
	Disagreement string `json:"-"`
	// Nameless are deleted inodes that its QEMU holds and that can't be matched to a
	// file: candidates of a file whose state is FileUnknown, or nobody knows what. They are
	// pinned too.
	Nameless []File `json:"-"`
}

// Writes is true while the instance's QEMU has the inode, which somebody holds, open for
// writing: then it is no old one, whatever stands at its path.
func (i Instance) Writes(held Inode) bool {
	return i.opened(held, func(h Holder) bool { return h.Writable })
}

// HasOpen is true while the instance's QEMU has the inode, which somebody holds, open.
func (i Instance) HasOpen(held Inode) bool { return i.opened(held, func(Holder) bool { return true }) }

func (i Instance) opened(held Inode, way func(Holder) bool) bool {
	opens := func(f File) bool {
		return f.Identity().Is(held, true) && slices.ContainsFunc(f.Holders, func(h Holder) bool { return h.PID == i.PID && way(h) })
	}
	return i.PID != 0 && (slices.ContainsFunc(i.Files, opens) || slices.ContainsFunc(i.Nameless, opens))
}

// Strays returns the deleted files that its QEMU has open and that are none of its
// definition's: nobody else may have their content.
func (i Instance) Strays() []File {
	strays := slices.Clone(i.Nameless)
	for _, f := range i.Files {
		own := func(h Holder) bool { return i.PID != 0 && h.PID == i.PID }
		if f.Role == RoleOther && slices.ContainsFunc(f.Holders, own) {
			strays = append(strays, f)
		}
	}
	return strays
}

// Report is the result of a scan.
type Report struct {
	Host      string     `json:"host"`      // the compute host that was scanned
	Taken     time.Time  `json:"taken"`     // when its domains were listed
	Instances []Instance `json:"instances"` // by domain name
	// Foreign are the deleted files of instances that only processes write which libvirt does
	// not know.
	Foreign []Foreign `json:"foreign,omitempty"`
	// ComputeID says what is wrong with Nova's compute_id; nil for nothing.
	ComputeID *ComputeIDFault `json:"compute_id,omitempty"`
	// GuardFault says that the guard does not say, or not truly, what it holds; empty for nothing.
	GuardFault string `json:"guard_fault,omitempty"`
}

// Verdicts returns every verdict, the worst first.
func Verdicts() []Verdict {
	return []Verdict{VerdictLost, VerdictConflict, VerdictRecoverable, VerdictUnknown, VerdictDisplaced, VerdictIntact, VerdictUnaffected}
}
