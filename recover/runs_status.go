package recover

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// hostRuns are the runs of this host, from their journals.
type hostRuns struct{ state stateDir }

// runsOf returns the runs whose journals are below a state directory.
func runsOf(dir string) hostRuns { return hostRuns{stateDir(dir)} }

// all returns every run of this host, the newest first. A journal that can't be read in
// full is no error: the status of its run says so.
func (r hostRuns) all(ctx context.Context) ([]RunStatus, error) {
	ids, err := r.state.list()
	if err != nil {
		return nil, err
	}
	statuses := []RunStatus{}
	for _, id := range slices.Backward(ids) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		statuses = append(statuses, r.status(id))
	}
	return statuses, nil
}

// find returns the run of that name, or the only one whose name begins with it.
// ErrNoRun when there is none, or more than one.
func (r hostRuns) find(name string) (RunStatus, error) {
	id, err := r.state.find(name)
	if err != nil {
		return RunStatus{}, err
	}
	return r.status(id), nil
}

func (r hostRuns) status(id string) RunStatus {
	_, status, _ := r.read(id) // the status contains the error
	return status
}

// read returns the records of a run, as far as they can be read, and the state of the
// run, including whether a process works on it now.
func (r hostRuns) read(id string) ([]Record, RunStatus, error) {
	// The lock is queried before the journal is read: if the run ends in between, its
	// journal says that it is finished.
	busy, running := r.state.running()
	records, err := readJournal(r.state.run(id))
	status, serr := statusOf(id, records)
	if err = errors.Join(err, serr); err != nil {
		status.Error, status.State = err.Error(), RunInterrupted
	}
	if running && busy.Run == id && status.State != RunFinished {
		status.State, status.PID = RunRunning, busy.PID
		// The witness of a killed run inherits its lock.
		if busy.Command == commandUndo || errors.Is(unix.Kill(busy.PID, 0), unix.ESRCH) {
			status.State = RunUndoing
		}
	}
	return records, status, err
}
