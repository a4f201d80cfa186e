package recover

import "cmp"

// report returns the report of a run, made anew from its journal. For a finished run it
// is what the command printed when it ended. An instance that is not settled yet counts
// as failed, and its error says what to do. name is that of find. ErrNoRun, or what is
// wrong with the journal.
func (r hostRuns) report(name string) (RunReport, error) {
	id, err := r.state.find(name)
	if err != nil {
		return RunReport{}, err
	}
	records, status, err := r.read(id)
	if err != nil {
		return RunReport{}, err
	}
	var head runHeader
	if len(records) > 0 {
		if head, err = headOf(records); err != nil {
			return RunReport{}, err
		}
	}
	histories, err := priorsOf(records)
	if err != nil {
		return RunReport{}, err
	}
	whole, _, err := planOf(records)
	if err != nil {
		return RunReport{}, err
	}
	ended, err := endOf(records)
	if err != nil {
		return RunReport{}, err
	}
	report := RunReport{
		Run:         id,
		Command:     status.Command,
		Host:        status.Host,
		Mode:        cmp.Or(whole.Mode, head.Mode),
		Started:     status.Started,
		Finished:    status.Finished,
		Interrupted: interrupted(status.State, ended),
		Instances:   []InstanceReport{},
		Elsewhere:   whole.Elsewhere,
		Warnings:    whole.Warnings,
	}
	for _, i := range status.Instances {
		one := unfinished(i, status)
		if h := histories[i.UUID]; h != nil && h.settlement != nil {
			one = h.settlement.Report
		}
		report.Instances = append(report.Instances, one)
	}
	return report, nil
}

// interrupted is true for a run that stopped before it had done everything. A run that
// was interrupted and is being resumed now is under way: it may still do everything.
func interrupted(state RunState, ended runEnd) bool {
	switch state {
	case RunRunning:
		return false
	case RunFinished:
		return ended.Interrupted
	default:
		return true
	}
}

// unfinished returns the report of an instance that its run has not settled.
func unfinished(i InstanceStatus, status RunStatus) InstanceReport {
	what, next := "not begun", "os-rescue resume "+status.Run
	if i.Last != "" {
		what = "not finished; its last journal record is " + i.Last
	}
	if status.State == RunRunning {
		next = "its run is under way; follow it with: os-rescue status " + status.Run
	}
	return InstanceReport{
		UUID:    i.UUID,
		Domain:  i.Domain,
		Name:    i.Name,
		Outcome: OutcomeFailed,
		Steps:   []StepReport{},
		Error:   what + ": " + next,
	}
}
