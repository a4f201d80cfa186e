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
	Name    string    `json:"name"`
	Path    string    `json:"path,omitempty"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"` // 0 for one that never ended
	State   Phase     `json:"state"`
	Error   string    `json:"error,omitempty"`
}

// InstanceStatus is the state of one instance of a run.
type InstanceStatus struct {
	UUID    string       `json:"uuid"`
	Domain  string       `json:"domain"`
	Name    string       `json:"name,omitempty"`
	Outcome Outcome      `json:"outcome,omitempty"` // empty while it is not settled
	Error   string       `json:"error,omitempty"`
	Last    string       `json:"last,omitempty"` // the last journal point: "copy.begin"
	Steps   []StepStatus `json:"steps"`
}

// RunStatus is the state of one run, from its journal.
type RunStatus struct {
	Run       string           `json:"run"`
	Command   Command          `json:"command"`
	Host      string           `json:"host"`
	Started   time.Time        `json:"started"`
	Finished  time.Time        `json:"finished,omitzero"` // zero when it is not
	State     RunState         `json:"state"`
	PID       int              `json:"pid,omitempty"` // of a running one
	Options   Options          `json:"options"`
	Error     string           `json:"error,omitempty"` // why its journal can't be read in full
	Instances []InstanceStatus `json:"instances"`
}

// Phase is how far a journaled step has come.
type Phase string

// A step has one record when it begins, and another when it is done or has failed.
const (
	PhaseBegin  Phase = "begin"
	PhaseDone   Phase = "done"
	PhaseFailed Phase = "failed"
)
