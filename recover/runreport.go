package recover

import "time"

// Outcome is the result of a run for one instance.
type Outcome string

// The outcomes.
const (
	OutcomeRescued Outcome = "rescued" // in a backup or a restore: backed up or restored
	OutcomeIntact  Outcome = "intact"
	OutcomeSkipped Outcome = "skipped" // not rescued, and left exactly as it was found: the error says why
	OutcomeFailed  Outcome = "failed"
	// The run was stopped before the instance was rescued. The error says how it was left,
	// and how to go on.
	OutcomeInterrupted Outcome = "interrupted"
	// Of a run that is under way, in a report that is made meanwhile: no verdict yet.
	OutcomeUnderWay Outcome = "under-way"
	OutcomeNotBegun Outcome = "not-begun"
)

// StepReport is one step of an instance in a run.
type StepReport struct {
	Name    string    `json:"name"`    // a step of package journal: "suspend"
	Started time.Time `json:"started"` // when it began
	Seconds float64   `json:"seconds"` // how long it took
}

// InstanceReport is the result of a run for one instance.
type InstanceReport struct {
	UUID    string       `json:"uuid"`           // of the instance
	Domain  string       `json:"domain"`         // the name of its libvirt domain
	Name    string       `json:"name,omitempty"` // Nova's display name
	Outcome Outcome      `json:"outcome"`        // how it ended
	Steps   []StepReport `json:"steps"`          // in order
	// PauseSeconds is the time from the suspend to the resume or the destroy.
	PauseSeconds float64 `json:"pause_seconds"`
	// DowntimeSeconds is the time from the suspend until the guest ran again.
	DowntimeSeconds float64 `json:"downtime_seconds"`
	Bytes           int64   `json:"bytes"` // read from the sources, holes not counted
	// Mode is how it was rescued: reboot or live; empty when no disk that the guest
	// writes was lost.
	Mode Mode `json:"mode,omitempty"`
	// Verified is how a live rescue was proven in the end. VerifyStructure means that the
	// copy was *not compared*.
	Verified Verify `json:"verified,omitempty"`
	Error    string `json:"error,omitempty"` // why it was not rescued, and what to do next
	// Notes are things that an operator should know but that are not errors.
	Notes []string `json:"notes,omitempty"`
}

// RunReport is the result of a run.
type RunReport struct {
	Run         string           `json:"run"`                   // its name
	Command     Command          `json:"command"`               // what the run did
	Host        string           `json:"host"`                  // the compute host that it ran on
	Mode        Mode             `json:"mode"`                  // that was asked for
	Started     time.Time        `json:"started"`               // when it began
	Finished    time.Time        `json:"finished,omitzero"`     // zero when it is not
	Interrupted bool             `json:"interrupted,omitempty"` // it stopped before it had done everything
	Abandoned   bool             `json:"abandoned,omitempty"`   // a person has ended it before it was done
	Instances   []InstanceReport `json:"instances"`             // every instance of its plan
	// Elsewhere are selected instances of other hosts, where the same command rescues
	// them. They do not count as unrescued.
	Elsewhere []Elsewhere `json:"elsewhere,omitempty"`
	Warnings  []string    `json:"warnings,omitempty"` // those of the plan, and what became of Nova's compute_id
}

// Unrescued counts the instances that needed a rescue and did not get one.
func (r RunReport) Unrescued() int {
	n := 0
	for _, i := range r.Instances {
		switch i.Outcome {
		case OutcomeFailed, OutcomeSkipped, OutcomeInterrupted:
			n++
		}
	}
	return n
}
