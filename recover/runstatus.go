package recover

import "time"

// RunState is where a run stands.
type RunState string

// The states of runs.
const (
	RunRunning     RunState = "running"
	RunFinished    RunState = "finished"
	RunInterrupted RunState = "interrupted" // resume finishes it
	RunUndoing     RunState = "undoing"     // it was killed, and its guests are being put back as they were found
)

// StepStatus is one step of an instance in a journal.
type StepStatus struct {
	Name    string    `json:"name"`            // a step of package journal: "suspend"
	Path    string    `json:"path,omitempty"`  // the file that it is about
	Started time.Time `json:"started"`         // when it began
	Seconds float64   `json:"seconds"`         // how long it took; 0 for one that never ended
	State   Phase     `json:"state"`           // how far it has come
	Error   string    `json:"error,omitempty"` // why it failed
}

// InstanceStatus is the state of one instance of a run.
type InstanceStatus struct {
	UUID    string       `json:"uuid"`              // of the instance
	Domain  string       `json:"domain"`            // the name of its libvirt domain
	Name    string       `json:"name,omitempty"`    // Nova's display name
	Outcome Outcome      `json:"outcome,omitempty"` // empty while it is not settled
	Error   string       `json:"error,omitempty"`   // why it was skipped or has failed
	Last    string       `json:"last,omitempty"`    // the last journal point: "copy.begin"
	Steps   []StepStatus `json:"steps"`             // in order; never nil
}

// RunStatus is the state of one run, from its journal.
type RunStatus struct {
	Run       string           `json:"run"`                 // its name
	Command   Command          `json:"command"`             // what the run does
	Host      string           `json:"host"`                // the compute host that it is on
	Started   time.Time        `json:"started"`             // when it began
	Finished  time.Time        `json:"finished,omitzero"`   // zero when it is not
	State     RunState         `json:"state"`               // where it stands
	Abandoned bool             `json:"abandoned,omitempty"` // it is finished because a person has ended it
	PID       int              `json:"pid,omitempty"`       // of the process that works on it now; 0 when none does
	Options   Options          `json:"options"`             // what the operator asked for
	Error     string           `json:"error,omitempty"`     // why its journal can't be read in full
	Instances []InstanceStatus `json:"instances"`           // every instance of its plan; never nil
}

// Phase is how far a journaled step has come.
type Phase string

// A step has one record when it begins, and another when it is done or has failed.
const (
	PhaseBegin  Phase = "begin"
	PhaseDone   Phase = "done"
	PhaseFailed Phase = "failed"
)
