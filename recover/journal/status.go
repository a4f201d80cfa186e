package journal

import (
	"slices"

	"github.com/os-rescue/os-rescue/recover"
)

// StatusOf returns the state of the run of that name, from the records of its journal.
// A run is finished if its last record is its end and all its instances are settled;
// otherwise it counts as interrupted: a journal can't tell whether its run still goes
// on. An instance that the run pinned before it had a plan, and that is not in the plan, is
// none of the run's; nor has a run that ended without a plan any. After an error the status
// is incomplete.
func StatusOf(id string, records []Record) (recover.RunStatus, error) {
	status := recover.RunStatus{Run: id, State: recover.RunInterrupted, Instances: []recover.InstanceStatus{}}
	if len(records) == 0 {
		return status, nil
	}
	head, err := HeaderOf(records)
	if err != nil {
		return status, err
	}
	status.Command, status.Host, status.Started, status.Options = head.Command, head.Host, records[0].Time, head.Options
	byUUID := map[string]*recover.InstanceStatus{}
	var order []string
	of := func(uuid string) *recover.InstanceStatus {
		if byUUID[uuid] == nil {
			byUUID[uuid] = &recover.InstanceStatus{UUID: uuid, Steps: []recover.StepStatus{}}
			order = append(order, uuid)
		}
		return byUUID[uuid]
	}
	planned := isEnded(records)
	in := map[string]bool{} // the plan, or worked on
	for _, r := range records {
		if r.Instance == "" {
			if r.Point() == StepPlan+".done" {
				var plan recover.Plan
				if err := r.decode(&plan); err != nil {
					return status, err
				}
				planned = true
				for _, todo := range plan.Instances {
					i := of(todo.UUID)
					i.Domain, i.Name = todo.Domain, todo.Name
					in[todo.UUID] = true
				}
			}
			continue
		}
		in[r.Instance] = in[r.Instance] || r.Step == StepInstance
		if err := addRecord(of(r.Instance), r); err != nil {
			return status, err
		}
	}
	settled := true
	for _, uuid := range order {
		if planned && !in[uuid] {
			continue
		}
		i := byUUID[uuid]
		settled = settled && i.Outcome != ""
		status.Instances = append(status.Instances, *i)
	}
	end, ended, err := EndOf(records)
	if ended && settled {
		status.State, status.Finished = recover.RunFinished, records[len(records)-1].Time
		status.Abandoned = end.Abandoned
	}
	return status, err
}

// addRecord adds one more record of an instance to its status.
func addRecord(i *recover.InstanceStatus, r Record) error {
	i.Last = r.Point()
	if r.Step == StepInstance {
		i.Outcome, i.Error = "", ""
		if r.Phase != recover.PhaseDone {
			return nil
		}
		var s Settlement
		if err := r.decode(&s); err != nil {
			return err
		}
		if s.Settled {
			i.Outcome = s.Report.Outcome
		}
		i.Error = s.Report.Error
		return nil
	}
	if r.Phase == recover.PhaseBegin {
		i.Steps = append(i.Steps, recover.StepStatus{Name: r.Step, Path: r.Path, Started: r.Time, State: recover.PhaseBegin})
		return nil
	}
	for n := range slices.Backward(i.Steps) {
		s := &i.Steps[n]
		if s.Name == r.Step && s.Path == r.Path && s.State == recover.PhaseBegin {
			s.State, s.Error, s.Seconds = r.Phase, r.Error, r.Time.Sub(s.Started).Seconds()
			break
		}
	}
	return nil
}
