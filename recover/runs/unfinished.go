package runs

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
)

// UnfinishedRun is a run that has not come to its end.
type UnfinishedRun struct {
	Run     string           `json:"run"`              // its name
	Command recover.Command  `json:"command"`          // what the run does
	State   recover.RunState `json:"state"`            // any but RunFinished
	Started time.Time        `json:"started,omitzero"` // zero when its journal does not tell
	Error   string           `json:"error,omitempty"`  // what is wrong with its journal
	// HalfDone are the instances whose live rescue it had begun and not brought to
	// an end: their guests may be suspended, mirrored, or on some of their new disks.
	// Empty while it is running.
	HalfDone []HalfDone `json:"half_done,omitempty"`
	// Suspended are the instances, of any other action, whose guests it has suspended or
	// frozen and not let go on, by its journal: somebody else may have, or ended them.
	// Empty while it is running.
	Suspended []HalfDone `json:"suspended,omitempty"`
}

// HalfDone is an instance that nobody works on, in the middle of what a run did to it.
type HalfDone struct {
	UUID   string    `json:"uuid"`             // of the instance
	Domain string    `json:"domain"`           // the name of its libvirt domain
	Name   string    `json:"name,omitempty"`   // Nova's display name
	Last   string    `json:"last,omitempty"`   // its last journal point
	Frozen bool      `json:"frozen,omitempty"` // its file systems may be
	Since  time.Time `json:"since,omitzero"`   // its last suspend began
}

// Unfinished returns the runs that have not come to their end, the newest first; never
// nil without an error. UnfinishedRun.Error says what is wrong with a journal.
func (r Runs) Unfinished(ctx context.Context) ([]UnfinishedRun, error) {
	statuses, err := r.All(ctx)
	if err != nil {
		return nil, err
	}
	unfinished := []UnfinishedRun{}
	for _, status := range statuses {
		if status.State == recover.RunFinished {
			continue
		}
		u := UnfinishedRun{Run: status.Run, Command: status.Command, State: status.State, Started: status.Started, Error: status.Error}
		if status.State != recover.RunRunning {
			records, err := journal.Read(r.state.Run(status.Run))
			half, suspended, herr := halfDone(records)
			u.HalfDone, u.Suspended = half, suspended
			if err = errors.Join(err, herr); err != nil && u.Error == "" {
				u.Error = err.Error()
			}
		}
		unfinished = append(unfinished, u)
	}
	return unfinished, nil
}

// halfDone returns the instances whose live rescue an interrupted run had begun and not
// settled, and of the others those whose guests it had suspended or frozen, by domain name.
// Of damaged records, those that can be decoded count, beside the error.
func halfDone(records []journal.Record) (live, suspended []HalfDone, err error) {
	plan, _, err := journal.PlanOf(records)
	histories, herr := journal.HistoriesOf(records)
	planned := map[string]recover.InstancePlan{}
	for _, todo := range plan.Instances {
		planned[todo.UUID] = todo
	}
	for _, uuid := range slices.Sorted(maps.Keys(histories)) {
		h, todo := histories[uuid], planned[uuid]
		if h.Replanned != nil {
			todo = *h.Replanned
		}
		one := HalfDone{UUID: uuid, Domain: todo.Domain, Name: todo.Name, Last: h.Last, Frozen: h.FreezeBegun, Since: h.Suspended}
		switch {
		case !h.Unsettled():
		case todo.Action == recover.ActionLive:
			live = append(live, one)
		case todo.Found == recover.StateRunning && (h.SuspendBegun || h.FreezeBegun) && !h.DestroyDone:
			suspended = append(suspended, one)
		}
	}
	for _, list := range [][]HalfDone{live, suspended} {
		slices.SortFunc(list, func(a, b HalfDone) int { return cmp.Compare(a.Domain, b.Domain) })
	}
	return live, suspended, errors.Join(err, herr)
}

// Unsettled returns, by UUID, the instances that a run began to work on and did not
// settle, each with the name of that run. It skips the run that holds the lock now. A
// journal that can't be read in full is no error.
func (r Runs) Unsettled(ctx context.Context) (map[string]string, error) {
	ids, err := r.state.List()
	if err != nil {
		return nil, err
	}
	busy, running := r.state.Running()
	unsettled := map[string]string{}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if running && busy.Run == id {
			continue
		}
		// Of a damaged journal, what can be read counts: it must not stop all other
		// commands.
		records, _ := journal.Read(r.state.Run(id))
		histories, err := journal.HistoriesOf(records)
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("run", id).Msg("the journal of a run is damaged")
		}
		for uuid, h := range histories {
			if h.Unsettled() {
				unsettled[uuid] = id
			}
		}
	}
	return unsettled, nil
}
