package recover

import (
	"fmt"
	"slices"
	"time"
)

// Command is what a run does.
type Command string

// The commands that make a run.
const (
	CommandRescue  Command = "rescue"
	CommandBackup  Command = "backup"
	CommandRestore Command = "restore"
	CommandReboot  Command = "reboot"
)

// Publishes is true for a command that gives files their names and owners.
func (c Command) Publishes() bool { return c == CommandRescue || c == CommandRestore }

// Action is what a run does to one instance.
type Action string

// The actions.
const (
	// ActionNone: nothing to do; the instance is intact.
	ActionNone Action = "none"
	// ActionPutBack: only files that the guest does not write are restored, while it runs.
	ActionPutBack Action = "put-back"
	// ActionLinkBack: files that have another name still are linked to their paths, while
	// the guest runs, and what it does not write is put back.
	ActionLinkBack Action = "link-back"
	// ActionMoveBack: the same, and files that were renamed get their names back.
	ActionMoveBack Action = "move-back"
	// ActionReboot: suspend, copy, prove, destroy, publish, start.
	ActionReboot Action = "reboot"
	// ActionLive: mirror while the guest runs, then move it onto the mirror.
	ActionLive Action = "live"
	// ActionPublish: the domain is off; its files come from pins or a backup.
	ActionPublish Action = "publish"
	// ActionBackup: suspend, copy, prove, resume.
	ActionBackup Action = "backup"
	// ActionHardReboot: a hard reboot through Nova and nothing else.
	ActionHardReboot Action = "hard-reboot"
	// ActionDirectories: directories get their owners and modes; nothing else is done.
	ActionDirectories Action = "directories"
	// ActionRefuse: the instance is left alone; Refusal says why.
	ActionRefuse Action = "refuse"
)

// RunsOn is true for an action that brings files back while the guest runs on untouched.
func (a Action) RunsOn() bool {
	return a == ActionPutBack || a == ActionLinkBack || a == ActionMoveBack
}

// FilePlan is one file that a run will copy, or make anew.
type FilePlan struct {
	Path      string `json:"path"`               // absolute: where it is published
	Role      Role   `json:"role"`               // what it is to its instance
	Format    string `json:"format,omitempty"`   // from libvirt, never probed
	Target    string `json:"target,omitempty"`   // the disk it belongs to: vda
	Backing   string `json:"backing,omitempty"`  // the path of its backing file
	Size      int64  `json:"size"`               // bytes
	Allocated int64  `json:"allocated"`          // bytes on disk, holes not counted
	Reserved  int64  `json:"reserved,omitempty"` // bytes that a clone has to reserve of its own
	Device    uint64 `json:"device"`             // of the lost inode; 0 for a file that is made anew
	Inode     uint64 `json:"inode"`              // as Device
	Birth     string `json:"birth,omitempty"`    // as Device: Inode.Birth
	Writable  bool   `json:"writable"`           // the guest writes it
	Direct    bool   `json:"direct"`             // it must be read with O_DIRECT, as QEMU does
	// UID, GID and Mode are those of the lost inode, or of the file in the backup. A file
	// outside the instances directory gets them back.
	UID  uint32   `json:"uid"`
	GID  uint32   `json:"gid"`  // see UID
	Mode FileMode `json:"mode"` // see UID
	// Content is the whole content of a file that no process holds (disk.info).
	Content string `json:"content,omitempty"`
	// Occupied is true when another file stood at the path when the plan was made.
	Occupied bool `json:"occupied,omitempty"`
	// ClosingWrites is true for a disk that QEMU writes once more when it ends (persistent
	// bitmaps, refcounts): a file that is equal to it before is not after.
	ClosingWrites bool `json:"closing_writes,omitempty"`
	// Stored is the path, below a backup's directory, of the copy to restore from; empty
	// in other runs.
	Stored string `json:"stored,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // digest of that copy, in hexadecimal
	// Corrupt is what qemu-img check found in the image when it was backed up; empty for nothing.
	Corrupt string `json:"corrupt,omitempty"`
	// Held is the key of the inode that is still held of a file to restore, which the copy
	// must equal: the guest may have written since the backup. Empty when nothing is to be
	// compared.
	Held       string `json:"held,omitempty"`
	HeldDirect bool   `json:"held_direct,omitempty"` // as Direct, of Held

	Unmirrorable string `json:"-"` // why a mirror can't take its place; empty when it can
	MirrorLoses  string `json:"-"` // what a mirror has not of it, and the guest does not miss; empty for nothing
}

// Key returns the key of the file's lost inode, which is unique on the host; empty for a
// file that is made anew.
func (f FilePlan) Key() string { return f.Identity().Key() }

// HasKey is true for the key of the file's lost inode, which releases that knew no births
// wrote without one: as long as a plan counts its inode is held, and the number tells. A file
// to restore may come from the inode that is still held of it.
func (f FilePlan) HasKey(key string) bool {
	return f.Held != "" && key == f.Held || key == f.Key() || key == f.Identity().Unborn().Key()
}

// Identity identifies the file's lost inode; zero for a file that is made anew.
func (f FilePlan) Identity() Inode { return Inode{Device: f.Device, Inode: f.Inode, Birth: f.Birth} }

// OfHeld returns the plan of a copy of the inode that is still held (Held), instead of the
// backup's file.
func (f FilePlan) OfHeld() FilePlan {
	held, _ := ParseKey(f.Held)
	f.Device, f.Inode, f.Birth, f.Direct = held.Device, held.Inode, held.Birth, f.HeldDirect
	f.Stored, f.SHA256, f.Held, f.HeldDirect = "", "", "", false
	return f
}

// InstancePlan is what a run will do to one instance.
type InstancePlan struct {
	UUID        string          `json:"uuid"`                   // of the domain, and of Nova's instance
	Domain      string          `json:"domain"`                 // the name of its libvirt domain
	Name        string          `json:"name,omitempty"`         // Nova's display name
	ProjectID   string          `json:"project_id,omitempty"`   // of the project that owns it
	ProjectName string          `json:"project_name,omitempty"` // that project's name
	Verdict     Verdict         `json:"verdict"`                // of the scan that the plan is made from
	Found       DomainState     `json:"found"`                  // the state to end in
	Process     ProcessIdentity `json:"process,omitzero"`       // of the QEMU that was scanned; zero for none
	DACLabel    string          `json:"dac_label,omitempty"`    // Domain.DACLabel
	ImageLabel  string          `json:"image_label,omitempty"`  // Domain.ImageLabel
	Action      Action          `json:"action"`                 // what the run will do to it
	Refusal     string          `json:"refusal,omitempty"`      // why it is left alone; of ActionRefuse only
	// NotLive says why mode auto can't rescue it live.
	NotLive string `json:"not_live,omitempty"`
	// Unexported says why its disks can't be proven while it runs, though the hypervisor can
	// show them; empty when they can. Of ActionLive only.
	Unexported string `json:"unexported,omitempty"`
	// NextStart says what any later start would change, and how to cure it; empty when it
	// would change nothing. The run itself starts no such instance.
	NextStart string `json:"next_start,omitempty"`
	// Server is the instance as Nova had it when the plan was made; nil offline.
	Server *Server `json:"server,omitempty"`
	// LastReboot is the request ID of the last reboot before this run.
	LastReboot string     `json:"last_reboot,omitempty"`
	Files      []FilePlan `json:"files,omitempty"` // to copy or to make anew
	// Directories get the owners and modes that the table says, before anything else.
	Directories []Directory `json:"directories,omitempty"`
	// Relinks are the files that get their names back, before any file is copied.
	Relinks []Relink `json:"relinks,omitempty"`
	// Steps describes what will happen, in order.
	Steps []string `json:"steps,omitempty"`
	// Strays are the keys of deleted files that its QEMU has open and that no definition
	// names, and of those in Instance.Superseded: they are not brought back, and stay pinned.
	Strays []string `json:"strays,omitempty"`
	// Restored is the snapshot in the backup from which it will be restored.
	Restored *Snapshot `json:"restored,omitempty"`
}

// Keys are the keys of the inodes that its files are made of, and of those that get their names
// back.
func (p InstancePlan) Keys() []string {
	var keys []string
	for _, f := range p.Files {
		keys = append(keys, f.Key(), f.Held)
	}
	for _, r := range p.Relinks {
		keys = append(keys, r.Held().Key())
	}
	return slices.DeleteFunc(keys, func(key string) bool { return key == "" })
}

// Bytes returns how many bytes will be copied, holes not counted.
func (p InstancePlan) Bytes() int64 {
	var n int64
	for _, f := range p.Files {
		n += f.Allocated
	}
	return n
}

// Paths returns the paths of the files that will be copied or made anew.
func (p InstancePlan) Paths() []string {
	paths := make([]string, len(p.Files))
	for n, f := range p.Files {
		paths[n] = f.Path
	}
	return paths
}

// Plan is everything that a run will do. It is fixed before the run changes anything.
type Plan struct {
	Run       string         `json:"run,omitempty"`     // the run's name; empty in a dry run
	Command   Command        `json:"command"`           // what the run does
	Mode      Mode           `json:"mode"`              // that was asked for; what an instance gets is its Action
	Host      string         `json:"host"`              // the compute host that the run is on
	BootID    string         `json:"boot_id,omitempty"` // of the boot in which it is made
	Created   time.Time      `json:"created"`           // when it was made
	Options   Options        `json:"options"`           // what the operator asked for
	Instances []InstancePlan `json:"instances"`         // every selected one of this host
	// OneByOne is true when not all copies fit at once. Then the run releases the old
	// inodes of one instance before it copies the next.
	OneByOne bool `json:"one_by_one,omitempty"`
	// Elsewhere are selected instances that are not on this host.
	Elsewhere []Elsewhere `json:"elsewhere,omitempty"`
	// Warnings are what the operator should know before agreeing.
	Warnings []string `json:"warnings,omitempty"`
	// ComputeID says what is wrong with Nova's compute_id; nil for nothing.
	ComputeID *ComputeIDFault `json:"compute_id,omitempty"`
	// Space lists what the run needs, and what is free, on each file system.
	Space []SpacePlan `json:"space,omitempty"`
}

// Elsewhere is a selected instance that Nova has on another host or on no host, or whose
// cell does not answer.
type Elsewhere struct {
	UUID    string `json:"uuid"`              // of the instance
	Name    string `json:"name,omitempty"`    // Nova's display name
	Host    string `json:"host"`              // empty when Nova has it on no host
	Status  string `json:"status,omitempty"`  // Server.Status
	Unknown bool   `json:"unknown,omitempty"` // its cell does not answer: it may be here
}

// SpacePlan is the space on one file system.
type SpacePlan struct {
	Path     string `json:"path"`     // a directory on it
	Need     int64  `json:"need"`     // bytes, for all instances together
	Free     int64  `json:"free"`     // bytes
	Headroom int64  `json:"headroom"` // bytes that must stay free
	Clones   bool   `json:"clones"`   // copies are reflinks and need no room
}

// Work returns the instances that the run will act on.
func (p Plan) Work() []InstancePlan {
	var work []InstancePlan
	for _, i := range p.Instances {
		if i.Action != ActionNone && i.Action != ActionRefuse {
			work = append(work, i)
		}
	}
	return work
}

// Disruptive returns the instances that the run will pause, destroy or start, or whose
// files it will rename. They need the operator's consent.
func (p Plan) Disruptive() []InstancePlan {
	var d []InstancePlan
	for _, i := range p.Work() {
		switch i.Action {
		case ActionPutBack, ActionLinkBack, ActionDirectories:
		default:
			d = append(d, i)
		}
	}
	return d
}

// Sentence says where the instance is.
func (w Elsewhere) Sentence() string {
	switch {
	case w.Unknown:
		return "its cell does not answer, so Nova can't say on which host it is, and it has no domain on this host"
	case w.Host == "":
		return fmt.Sprintf("Nova has it on no host (%s)", w.Status)
	default:
		return fmt.Sprintf("it is on host %s: run os-rescue there", w.Host)
	}
}

// Refuse returns the plan as a refusal. The reason is formatted as by fmt.Sprintf.
func (p InstancePlan) Refuse(format string, args ...any) InstancePlan {
	p.Action, p.Files, p.Directories, p.Relinks, p.Steps = ActionRefuse, nil, nil, nil, nil
	p.Refusal = fmt.Sprintf(format, args...)
	return p
}

// AnyWritable is true when the guest writes one of the files.
func AnyWritable(files []FilePlan) bool {
	for _, f := range files {
		if f.Writable {
			return true
		}
	}
	return false
}
