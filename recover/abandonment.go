package recover

// AbandonChoice says what becomes of what a run holds and has staged when a person ends it.
// Zero keeps all of it.
type AbandonChoice struct {
	Release bool `json:"release"`        // let go of what is somewhere else as well
	Last    bool `json:"last,omitempty"` // with Release: let go of the last copies too
}

// Abandonment is what ending a run by hand does, or has done.
type Abandonment struct {
	Run      string  `json:"run"`     // its name
	Command  Command `json:"command"` // what the run does
	Host     string  `json:"host"`    // the compute host that it is on
	Finished bool    `json:"finished"`
	// Damage is what is wrong with its journal: what can be read of it counts.
	Damage    string              `json:"damage,omitempty"`
	Choice    AbandonChoice       `json:"choice"`
	Instances []AbandonedInstance `json:"instances"` // every one that it is about; never nil
}

// AbandonedInstance is one instance of a run that is ended by hand.
type AbandonedInstance struct {
	UUID   string `json:"uuid"`           // of the instance
	Domain string `json:"domain"`         // the name of its libvirt domain
	Name   string `json:"name,omitempty"` // Nova's display name
	// Outcome is how it had ended already; empty when the run is ended for it.
	Outcome Outcome `json:"outcome,omitempty"`
	// Notes say what becomes of its guest and of its lock in Nova, one sentence each.
	Notes    []string     `json:"notes,omitempty"`
	Error    string       `json:"error,omitempty"` // why the run could not be ended for it
	Holdings []RunHolding `json:"holdings"`        // never nil
}

// HoldingKind is how a run holds data of an instance.
type HoldingKind string

// The kinds of holdings.
const (
	HoldingPin   HoldingKind = "pin"       // the keeper has the lost file open
	HoldingCopy  HoldingKind = "copy"      // a staged copy, or the file of a mirror; perhaps incomplete
	HoldingAside HoldingKind = "put-aside" // what stood at the path before: never removed
)

// RunHolding is something that a run holds or has staged for an instance.
type RunHolding struct {
	Kind HoldingKind `json:"kind"`
	Of   string      `json:"of"`             // the path of the instance's file
	Path string      `json:"path,omitempty"` // where it is; empty for a pin
	Key  string      `json:"key,omitempty"`  // of the lost inode, which a pin holds or a copy was made of
	Size int64       `json:"size"`           // bytes on disk, holes not counted
	// Last is true when the content of the lost file is nowhere else for all that is known:
	// no QEMU has it open, and no proven copy is at its path.
	Last     bool `json:"last"`
	Released bool `json:"released"` // it was let go
}
