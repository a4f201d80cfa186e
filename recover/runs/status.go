package runs

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// Runs are the runs of this host, from their journals.
type Runs struct{ state statedir.Dir }

// Of returns the runs whose journals are below a state directory. It reads nothing yet.
func Of(dir string) Runs { return Runs{statedir.Dir(dir)} }

// All returns every run of this host, the newest first; never nil without an error. A
// journal that can't be read in full is no error: the status of its run says so.
func (r Runs) All(ctx context.Context) ([]recover.RunStatus, error) {
	ids, err := r.state.List()
	if err != nil {
		return nil, err
	}
	statuses := []recover.RunStatus{}
	for _, id := range slices.Backward(ids) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		statuses = append(statuses, r.status(id))
	}
	return statuses, nil
}

// Find returns the run of that name, or the only one whose name begins with it.
// ErrNoRun when there is none, or more than one.
func (r Runs) Find(name string) (recover.RunStatus, error) {
	id, err := r.state.Find(name)
	if err != nil {
		return recover.RunStatus{}, err
	}
	return r.status(id), nil
}

func (r Runs) status(id string) recover.RunStatus {
	_, status, _ := r.read(id) // the status contains the error
	return status
}

// read returns the records of a run, as far as they can be read, and the state of the
// run, including whether a process works on it now.
func (r Runs) read(id string) ([]journal.Record, recover.RunStatus, error) {
	// The lock is queried before the journal is read: if the run ends in between, its
	// journal says that it is finished.
	busy, running := r.state.Running()
	records, err := journal.Read(r.state.Run(id))
	status, serr := journal.StatusOf(id, records)
	if err = errors.Join(err, serr); err != nil {
		status.Error, status.State = err.Error(), recover.RunInterrupted
	}
	if running && busy.Run == id && status.State != recover.RunFinished {
		status.State, status.PID = recover.RunRunning, busy.PID
		// The witness of a killed run inherits its lock.
		if busy.Command == statedir.CommandUndo || errors.Is(unix.Kill(busy.PID, 0), unix.ESRCH) {
			status.State = recover.RunUndoing
		}
	}
	return records, status, err
}

// Report returns the report of a run, made anew from its journal. For a finished run it
// is what the command printed when it ended. An instance that is not settled yet is under
// way or not begun while its run is; else it counts as failed, and its error says what to
// do. name is that of Find. ErrNoRun, or what is wrong with the journal.
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
	plan, _, err := journal.PlanOf(records)
	if err != nil {
		return recover.RunReport{}, err
	}
	end, ended, err := journal.EndOf(records)
	if err != nil {
		return recover.RunReport{}, err
	}
	report := recover.RunReport{
		Run:      id,
		Command:  status.Command,
		Host:     status.Host,
		Mode:     cmp.Or(plan.Mode, head.Mode),
		Started:  status.Started,
		Finished: status.Finished,
		// Not a run that came to its end and left something for a resume, nor one that is
		// being resumed now and may still do everything.
		Interrupted: status.State != recover.RunRunning && (!ended || end.Interrupted),
		Abandoned:   status.Abandoned,
		Instances:   []recover.InstanceReport{},
		Elsewhere:   plan.Elsewhere,
		Warnings:    plan.Warnings,
	}
	for _, i := range status.Instances {
		h := histories[i.UUID]
		one := unfinished(i, status, h != nil && h.Begun)
		// What an earlier try left for a resume that is under way says nothing of that.
		if h != nil && h.Settlement != nil && (h.Settlement.Settled || status.State != recover.RunRunning) {
			one = h.Settlement.Report
		}
		report.Instances = append(report.Instances, one)
	}
	return report, nil
}

// unfinished returns the report of an instance that its run has not settled; begun is true
// when the work on it has begun.
func unfinished(i recover.InstanceStatus, status recover.RunStatus, begun bool) recover.InstanceReport {
	report := recover.InstanceReport{UUID: i.UUID, Domain: i.Domain, Name: i.Name, Steps: []recover.StepReport{}}
	if status.State == recover.RunRunning {
		report.Outcome = recover.OutcomeNotBegun
		if begun {
			report.Outcome = recover.OutcomeUnderWay
			report.Notes = []string{"its last journal record is " + i.Last + "; follow it with: os-rescue status " + status.Run}
		}
		return report
	}
	what := "the run ended before it began with it"
	if begun {
		what = "the run ended in the middle of it; its last journal record is " + i.Last
	}
	report.Outcome, report.Error = recover.OutcomeInterrupted, what+". Go on with: os-rescue resume "+status.Run
	return report
}
