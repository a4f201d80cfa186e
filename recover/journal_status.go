package recover

import (
	"slices"
	"time"
)

// RunState is where a run stands.
type RunState string

// The states of runs.
const (
	RunRunning     RunState = "running"
	RunFinished    RunState = "finished"
	RunInterrupted RunState = "interrupted" // resume finishes it
	RunUndoing     RunState = "undoing"     // it was killed: its guests are left as they were found, which takes a moment
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

// InstanceStatus is one instance of a run.
type InstanceStatus struct {
	UUID    string       `json:"uuid"`
	Domain  string       `json:"domain"`
	Name    string       `json:"name,omitempty"`
	Outcome Outcome      `json:"outcome,omitempty"` // empty while it is not settled
	Error   string       `json:"error,omitempty"`
	Last    string       `json:"last,omitempty"` // the last journal point: "copy.begin"
	Steps   []StepStatus `json:"steps"`
}

// RunStatus is one run as its journal tells it.
type RunStatus struct {
	Run       string           `json:"run"`
	Command   Command          `json:"command"`
	Host      string           `json:"host"`
	Started   time.Time        `json:"started"`
	Finished  time.Time        `json:"finished,omitzero"` // zero when it is not
	State     RunState         `json:"state"`
	PID       int              `json:"pid,omitempty"` // of a running one
	Options   Options          `json:"options"`
	Error     string           `json:"error,omitempty"` // what is wrong with its journal
	Instances []InstanceStatus `json:"instances"`
}

// statusOf reads a journal. A run whose last record is its end, and all of whose
// instances are settled, is finished.
func statusOf(id string, records []Record) (RunStatus, error) {
	run := RunStatus{Run: id, State: RunInterrupted, Instances: []InstanceStatus{}}
	if len(records) == 0 {
		return run, nil
	}
	head, err := headOf(records)
	if err != nil {
		return run, err
	}
	run.Command, run.Host, run.Started, run.Options = head.Command, head.Host, records[0].Time, head.Options
	byUUID := map[string]*InstanceStatus{}
	var order []string
	of := func(uuid string) *InstanceStatus {
		if byUUID[uuid] == nil {
			byUUID[uuid] = &InstanceStatus{UUID: uuid, Steps: []StepStatus{}}
			order = append(order, uuid)
		}
		return byUUID[uuid]
	}
	settled := true
	for _, r := range records {
		if r.Instance == "" {
			if r.Point() == stepPlan+".done" {
				var plan Plan
				if err := r.decode(&plan); err != nil {
					return run, err
				}
				for _, ip := range plan.Instances {
					i := of(ip.UUID)
					i.Domain, i.Name = ip.Domain, ip.Name
				}
			}
			continue
		}
		if err := of(r.Instance).add(r); err != nil {
			return run, err
		}
	}
	for _, uuid := range order {
		i := byUUID[uuid]
		settled = settled && i.Outcome != ""
		run.Instances = append(run.Instances, *i)
	}
	if last := records[len(records)-1]; last.Point() == stepRun+".done" && settled {
		run.State, run.Finished = RunFinished, last.Time
	}
	return run, nil
}

// add takes one more record of the instance in.
func (i *InstanceStatus) add(r Record) error {
	i.Last = r.Point()
	if r.Step == stepInstance {
		i.Outcome, i.Error = "", ""
		if r.Phase != PhaseDone {
			return nil
		}
		var s settlement
		if err := r.decode(&s); err != nil {
			return err
		}
		if s.Settled {
			i.Outcome = s.Report.Outcome
		}
		i.Error = s.Report.Error
		return nil
	}
	if r.Phase == PhaseBegin {
		i.Steps = append(i.Steps, StepStatus{Name: r.Step, Path: r.Path, Started: r.Time, State: PhaseBegin})
		return nil
	}
	for n := range slices.Backward(i.Steps) {
		s := &i.Steps[n]
		if s.Name == r.Step && s.Path == r.Path && s.State == PhaseBegin {
			s.State, s.Error, s.Seconds = r.Phase, r.Error, r.Time.Sub(s.Started).Seconds()
			break
		}
	}
	return nil
}
