package recover

import "cmp"

// report returns the report of a run, made anew from its journal: of a finished one
// what the command printed when it ended. It takes a name as find does. ErrNoRun.
func (r hostRuns) report(name string) (RunReport, error) {
	id, err := r.state.find(name)
	if err != nil {
		return RunReport{}, err
	}
	records, run, err := r.read(id)
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
	report := RunReport{Run: id, Command: run.Command, Host: run.Host, Mode: cmp.Or(whole.Mode, head.Mode), Started: run.Started,
		Finished: run.Finished, Interrupted: run.State == RunInterrupted || ended.Interrupted, Instances: []InstanceReport{},
		Elsewhere: whole.Elsewhere, Warnings: whole.Warnings}
	for _, i := range run.Instances {
		ir := InstanceReport{UUID: i.UUID, Domain: i.Domain, Name: i.Name, Outcome: OutcomeFailed, Steps: []StepReport{},
			Error: "not finished; the last it did was " + i.Last + ": os-rescue resume " + id}
		if h := histories[i.UUID]; h != nil && h.settlement != nil {
			ir = h.settlement.Report
		}
		report.Instances = append(report.Instances, ir)
	}
	return report, nil
}
