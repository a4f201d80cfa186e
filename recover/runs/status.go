package runs

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/statedir"

	"github.com/os-rescue/os-rescue/recover"
)

// hostRuns are the runs of this host, from their journals.
type Runs struct{ state statedir.Dir }

// runsOf returns the runs whose journals are below a state directory.
func Of(dir string) Runs { return Runs{statedir.Dir(dir)} }

// all returns every run of this host, the newest first. A journal that can't be read in
// full is no error: the status of its run says so.
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

// find returns the run of that name, or the only one whose name begins with it.
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
