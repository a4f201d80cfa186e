package recover

import "time"

// Role says what a file is to its instance.
type Role string

// The roles of files.
const (
	RoleDisk        Role = "disk" // disk, disk.eph0, disk.swap, a volume in a file: whatever the guest writes
	RoleBacking     Role = "backing"
	RoleConfigDrive Role = "config-drive"
	RoleConsoleLog  Role = "console-log"
	RoleDiskInfo    Role = "disk-info"
	RoleNVRAM       Role = "nvram"
	RoleOther       Role = "other" // held by QEMU, named by no definition; reported and pinned, never acted on
)

// FileState says where a file stands.
type FileState string

// The states of files.
const (
	// FilePresent: the path leads to the inode that is held, or to a file that nobody needs to hold.
	FilePresent FileState = "present"
	// FileDeleted: the held inode has no name any more, and nothing stands at its path.
	FileDeleted FileState = "deleted"
	// FileDisplaced: the held inode still has a name, but not the one it should have.
	FileDisplaced FileState = "displaced"
	// FileReplaced: the held inode has no name any more, and another file stands at its path.
	FileReplaced FileState = "replaced"
	// FileMissing: nothing at the path, and nobody holds it.
	FileMissing FileState = "missing"
)

// Verdict sums an instance up.
type Verdict string

// The verdicts.
const (
	VerdictIntact      Verdict = "intact"
	VerdictRecoverable Verdict = "recoverable"
	VerdictDisplaced   Verdict = "displaced"
	VerdictConflict    Verdict = "conflict"
	VerdictLost        Verdict = "lost"
	VerdictUnaffected  Verdict = "unaffected"
	VerdictUnknown     Verdict = "unknown" // the scan could not look: the reasons say why
)

// Holder is one descriptor through which a process holds a file.
type Holder struct {
	PID     int    `json:"pid"`
	FD      int    `json:"fd"`
	Process string `json:"process"` // the command name: qemu-system-x86, virtlogd, os-rescue (the keeper)
	// Direct is true when the descriptor carries O_DIRECT.
	Direct bool `json:"direct"`
	// Writable is true when the descriptor was opened for writing.
	Writable bool `json:"writable"`
}

// File is one file of an instance, as a scan found it.
type File struct {
	Path      string    `json:"path"`
	Role      Role      `json:"role"`
	Format    string    `json:"format"`
	Size      int64     `json:"size"`      // bytes
	Allocated int64     `json:"allocated"` // bytes on the file system, holes not counted
	Device    uint64    `json:"device"`    // of the held inode; 0 when nobody holds it and nothing is there
	Inode     uint64    `json:"inode"`
	State     FileState `json:"state"`
	// Reason says in words why the state is what it is, where that is not plain.
	Reason  string   `json:"reason,omitempty"`
	Target  string   `json:"target,omitempty"`  // the disk it belongs to: vda
	Backing string   `json:"backing,omitempty"` // the path of the next member of its chain, as libvirt says
	Holders []Holder `json:"holders"`
	// Writable is true for what the guest writes: only such a file, lost,
	// justifies a pause.
	Writable bool `json:"writable"`
	// Proven is true for a file that a run put back with the content of the
	// inode that is still held: replaced, and no conflict.
	Proven bool `json:"proven,omitempty"`

	unlinked bool   // the held inode has no name any more, whatever the state says
	kept     string // the content of a small file that the guard has kept
	guarded  bool   // named by no definition, and the guard holds it to be put back
	resolved string // Path with the links above it followed, as the kernel shows it
}

// Lost is true when the file's held inode has no name any more and nothing
// proven stands in its place.
func (f File) Lost() bool {
	return (f.State == FileDeleted || f.State == FileReplaced) && !f.Proven
}

// Instance is one domain of the host, as a scan found it.
type Instance struct {
	UUID        string      `json:"uuid"`
	Name        string      `json:"name,omitempty"` // Nova's display name
	Domain      string      `json:"domain"`
	PID         int         `json:"pid"`
	State       DomainState `json:"state"`
	ProjectID   string      `json:"project_id"`
	ProjectName string      `json:"project_name"`
	Verdict     Verdict     `json:"verdict"`
	// Reasons explain the verdict, one sentence each.
	Reasons []string `json:"reasons,omitempty"`
	// Possible says what can still be done for an instance that os-rescue can't
	// simply rescue, one sentence each.
	Possible []string `json:"possible,omitempty"`
	// Losses are what a hard reboot through Nova would lose of it.
	Losses []string `json:"losses,omitempty"`
	Files  []File   `json:"files"`

	domain  Domain
	process ProcessIdentity
	// forgotten is true when libvirt does not know the domain: it is the guard's
	// record of it that was scanned.
	forgotten bool
	// before is the state in which its files were deleted, by the guard; empty when
	// that did not see it.
	before DomainState
	// server is what Nova says of it; nil offline.
	server *Server
	// disagreement says why it is left alone although its files may be in
	// order: Nova and the hypervisor do not say the same of it.
	disagreement string
	// nameless are further deleted inodes that its QEMU holds: which files they
	// were can't be told, but they are pinned.
	nameless []File
}

// Report is the result of a scan.
type Report struct {
	Host      string     `json:"host"`
	Taken     time.Time  `json:"taken"`
	Instances []Instance `json:"instances"` // by domain name
}

// Verdicts returns every verdict, the worst first.
func Verdicts() []Verdict {
	return []Verdict{VerdictLost, VerdictConflict, VerdictRecoverable, VerdictUnknown, VerdictDisplaced, VerdictIntact, VerdictUnaffected}
}
