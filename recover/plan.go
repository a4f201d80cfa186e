package recover

import (
	"fmt"
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

// Action is what a plan does to one instance.
type Action string

// The actions.
const (
	// ActionNone: nothing to do; the instance is intact.
	ActionNone Action = "none"
	// ActionPutBack: only files that the guest does not write are restored, while it runs.
	ActionPutBack Action = "put-back"
	// ActionReboot: suspend, copy, prove, destroy, publish, start.
	ActionReboot Action = "reboot"
	// ActionLive: mirror while the guest runs, move it onto the mirror.
	ActionLive Action = "live"
	// ActionPublish: the domain is off; its files come from pins or a backup.
	ActionPublish Action = "publish"
	// ActionBackup: suspend, copy, prove, let go on.
	ActionBackup Action = "backup"
	// ActionHardReboot: nothing but a hard reboot through Nova.
	ActionHardReboot Action = "hard-reboot"
	// ActionRefuse: the instance is left alone; Refusal says why.
	ActionRefuse Action = "refuse"
)

// FilePlan is one file that a run will copy, or make.
type FilePlan struct {
	Path      string `json:"path"`
	Role      Role   `json:"role"`
	Format    string `json:"format,omitempty"`
	Target    string `json:"target,omitempty"`
	Backing   string `json:"backing,omitempty"`
	Size      int64  `json:"size"`
	Allocated int64  `json:"allocated"`
	Device    uint64 `json:"device"`
	Inode     uint64 `json:"inode"`
	Writable  bool   `json:"writable"`
	Direct    bool   `json:"direct"` // to be read with O_DIRECT, as QEMU does
	// UID, GID and Mode are those of the lost inode: what a file outside the
	// instances directory gets back.
	UID  uint32   `json:"uid"`
	GID  uint32   `json:"gid"`
	Mode FileMode `json:"mode"`
	// Content is what a file that nobody holds is made of (disk.info).
	Content string `json:"content,omitempty"`
	// Occupied is true when another file stood at the path when the plan was made.
	Occupied bool `json:"occupied,omitempty"`
	// Stored is the file's place below a backup's directory; SHA256 its digest there.
	Stored string `json:"stored,omitempty"`
	SHA256 string `json:"sha256,omitempty"`

	unmirrorable string // why a mirror would lose something of it
}

// Key names the file's inode among all inodes of the host; empty for made files.
func (f FilePlan) Key() string { return inodeKey(f.Device, f.Inode) }

// InstancePlan is what a run will do to one instance.
type InstancePlan struct {
	UUID        string          `json:"uuid"`
	Domain      string          `json:"domain"`
	Name        string          `json:"name,omitempty"`
	ProjectID   string          `json:"project_id,omitempty"`
	ProjectName string          `json:"project_name,omitempty"`
	Verdict     Verdict         `json:"verdict"`
	Found       DomainState     `json:"found"` // the state to end in
	Process     ProcessIdentity `json:"process,omitzero"`
	DACLabel    string          `json:"dac_label,omitempty"`
	ImageLabel  string          `json:"image_label,omitempty"`
	Action      Action          `json:"action"`
	Refusal     string          `json:"refusal,omitempty"`
	// NotLive says why mode auto does not rescue it live.
	NotLive string `json:"not_live,omitempty"`
	// Server is the instance as Nova had it when the plan was made; nil offline.
	Server *Server `json:"server,omitempty"`
	// LastReboot is the request ID of the last reboot before this run.
	LastReboot string     `json:"last_reboot,omitempty"`
	Files      []FilePlan `json:"files,omitempty"`
	// Steps says in order and in words what will happen.
	Steps []string `json:"steps,omitempty"`
	// Restored is the snapshot of a backup that is to be restored.
	Restored *Snapshot `json:"restored,omitempty"`
}

// Bytes is the sum of what will be copied, holes not counted.
func (p InstancePlan) Bytes() int64 {
	var n int64
	for _, f := range p.Files {
		n += f.Allocated
	}
	return n
}

// Plan is the whole of what a run will do, fixed before it does anything.
type Plan struct {
	Run       string         `json:"run,omitempty"` // empty in a dry run
	Command   Command        `json:"command"`
	Mode      Mode           `json:"mode"`
	Host      string         `json:"host"`
	BootID    string         `json:"boot_id,omitempty"`
	Created   time.Time      `json:"created"`
	Options   Options        `json:"options"`
	Instances []InstancePlan `json:"instances"`
	// OneByOne is true when not all copies fit at once: each instance's old
	// inodes are let go before the next one is copied.
	OneByOne bool `json:"one_by_one,omitempty"`
	// Elsewhere are selected instances that are not this host's to rescue.
	Elsewhere []Elsewhere `json:"elsewhere,omitempty"`
	// Warnings are what an operator should know before agreeing.
	Warnings []string `json:"warnings,omitempty"`
	// Space says for each file system what the run needs and what is free.
	Space []SpacePlan `json:"space,omitempty"`
}

// Elsewhere is a selected instance that Nova has on another host, on none, or in
// a cell that does not answer.
type Elsewhere struct {
	UUID    string `json:"uuid"`
	Name    string `json:"name,omitempty"`
	Host    string `json:"host"` // empty when Nova has it on no host
	Status  string `json:"status,omitempty"`
	Unknown bool   `json:"unknown,omitempty"` // its cell does not answer: it may be here
}

// SpacePlan is the room on one file system.
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

// Disruptive returns the instances that the run will pause, destroy or start:
// those that need an operator's consent.
func (p Plan) Disruptive() []InstancePlan {
	var d []InstancePlan
	for _, i := range p.Work() {
		if i.Action != ActionPutBack {
			d = append(d, i)
		}
	}
	return d
}

// sentence says where an instance is that is not here.
func (w Elsewhere) sentence() string {
	switch {
	case w.Unknown:
		return "its cell does not answer, so Nova can't say on which host it is; no domain of this host is its own"
	case w.Host == "":
		return fmt.Sprintf("Nova has it on no host (%s)", w.Status)
	default:
		return fmt.Sprintf("it is on host %s: run os-rescue there", w.Host)
	}
}

func (p InstancePlan) refuse(format string, args ...any) InstancePlan {
	p.Action, p.Files, p.Steps = ActionRefuse, nil, nil
	p.Refusal = fmt.Sprintf(format, args...)
	return p
}

func anyWritable(files []FilePlan) bool {
	for _, f := range files {
		if f.Writable {
			return true
		}
	}
	return false
}
