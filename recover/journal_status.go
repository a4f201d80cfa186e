package recover

import (
	"slices"
	"time"
)

// RunState is the state of a run.
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

// statusOf returns the state of the run of that name, from the records of its journal.
// A run is finished if its last record is its end and all its instances are settled;
// otherwise it counts as interrupted: a journal can't tell whether its run still goes
// on. After an error the status is incomplete.
func statusOf(id string, records []Record) (RunStatus, error) {
	status := RunStatus{Run: id, State: RunInterrupted, Instances: []InstanceStatus{}}
	if len(records) == 0 {
		return status, nil
	}
	head, err := headOf(records)
	if err != nil {
		return status, err
	}
	status.Command, status.Host, status.Started, status.Options = head.Command, head.Host, records[0].Time, head.Options
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
				var whole Plan
				if err := r.decode(&whole); err != nil {
					return status, err
				}
				for _, todo := range whole.Instances {
					i := of(todo.UUID)
					i.Domain, i.Name = todo.Domain, todo.Name
				}
			}
			continue
		}
		if err := of(r.Instance).add(r); err != nil {
			return status, err
		}
	}
	for _, uuid := range order {
		i := byUUID[uuid]
		settled = settled && i.Outcome != ""
		status.Instances = append(status.Instances, *i)
	}
	if last := records[len(records)-1]; last.Point() == stepRun+".done" && settled {
		status.State, status.Finished = RunFinished, last.Time
	}
	return status, nil
}

// add takes in the next record of the instance.
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
