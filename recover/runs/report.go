package runs

import (
	"cmp"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
)

// report returns the report of a run, made anew from its journal. For a finished run it
// is what the command printed when it ended. An instance that is not settled yet counts
// as failed, and its error says what to do. name is that of find. ErrNoRun, or what is
// wrong with the journal.
func (r Runs) Report(name string) (recover.RunReport, error) {
	id, err := r.state.Find(name)
	if err != nil {
		return recover.RunReport{}, err
	}
	records, status, err := r.read(id)
	if err != nil {
		return recover.RunReport{}, err
	}
	var head journal.Header
	if len(records) > 0 {
		if head, err = journal.HeaderOf(records); err != nil {
			return recover.RunReport{}, err
		}
	}
	histories, err := journal.HistoriesOf(records)
	if err != nil {
		return recover.RunReport{}, err
	}
	whole, _, err := journal.PlanOf(records)
	if err != nil {
		return recover.RunReport{}, err
	}
	ended, err := journal.EndOf(records)
	if err != nil {
		return recover.RunReport{}, err
	}
	report := recover.RunReport{
		Run:         id,
		Command:     status.Command,
		Host:        status.Host,
		Mode:        cmp.Or(whole.Mode, head.Mode),
		Started:     status.Started,
		Finished:    status.Finished,
		Interrupted: interrupted(status.State, ended),
		Instances:   []recover.InstanceReport{},
		Elsewhere:   whole.Elsewhere,
		Warnings:    whole.Warnings,
	}
	for _, i := range status.Instances {
		one := unfinished(i, status)
		if h := histories[i.UUID]; h != nil && h.Settlement != nil {
			one = h.Settlement.Report
		}
		report.Instances = append(report.Instances, one)
	}
	return report, nil
}

// interrupted is true for a run that stopped before it had done everything. A run that
// was interrupted and is being resumed now is under way: it may still do everything.
func interrupted(state recover.RunState, ended journal.End) bool {
	switch state {
	case recover.RunRunning:
		return false
	case recover.RunFinished:
		return ended.Interrupted
	default:
		return true
	}
}

// unfinished returns the report of an instance that its run has not settled.
func unfinished(i recover.InstanceStatus, status recover.RunStatus) recover.InstanceReport {
	what, next := "not begun", "os-rescue resume "+status.Run
	if i.Last != "" {
		what = "not finished; its last journal record is " + i.Last
	}
	if status.State == recover.RunRunning {
		next = "its run is under way; follow it with: os-rescue status " + status.Run
	}
	return recover.InstanceReport{
		UUID:    i.UUID,
		Domain:  i.Domain,
		Name:    i.Name,
		Outcome: recover.OutcomeFailed,
		Steps:   []recover.StepReport{},
		Error:   what + ": " + next,
	}
}
