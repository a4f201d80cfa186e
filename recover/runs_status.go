package recover

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// hostRuns are the runs of this host, as their journals tell them.
type hostRuns struct{ state stateDir }

// runsOf returns the runs whose journals are below a state directory.
func runsOf(dir string) hostRuns { return hostRuns{stateDir(dir)} }

// all returns every run of this host, the newest first.
func (r hostRuns) all(ctx context.Context) ([]RunStatus, error) {
	ids, err := r.state.list()
	if err != nil {
		return nil, err
	}
	runs := []RunStatus{}
	for _, id := range slices.Backward(ids) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		runs = append(runs, r.status(id))
	}
	return runs, nil
}

// find returns the run of that name, or the only one whose name begins so.
// ErrNoRun when there is none.
func (r hostRuns) find(name string) (RunStatus, error) {
	id, err := r.state.find(name)
	if err != nil {
		return RunStatus{}, err
	}
	return r.status(id), nil
}

func (r hostRuns) status(id string) RunStatus {
	_, run, _ := r.read(id) // what is wrong with it is said in the status
	return run
}

// read returns the records of a run, as far as they can be read, what they say, and
// who works on it now.
func (r hostRuns) read(id string) ([]Record, RunStatus, error) {
	// Who runs is asked first: one that ends meanwhile is finished in its journal.
	busy, running := r.state.running()
	records, err := readJournal(r.state.run(id))
	run, serr := statusOf(id, records)
	if err = errors.Join(err, serr); err != nil {
		run.Error, run.State = err.Error(), RunInterrupted
	}
	if running && busy.Run == id && run.State != RunFinished {
		run.State, run.PID = RunRunning, busy.PID
		// Of a killed run the lock lives on in its witness.
		if busy.Command == commandUndo || errors.Is(unix.Kill(busy.PID, 0), unix.ESRCH) {
			run.State = RunUndoing
		}
	}
	return records, run, err
}
