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
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// UnfinishedRun is a run that has not come to its end.
type UnfinishedRun struct {
	Run     string           `json:"run"`
	Command recover.Command  `json:"command"`
	State   recover.RunState `json:"state"`
	Started time.Time        `json:"started,omitzero"`
	Error   string           `json:"error,omitempty"` // what is wrong with its journal
	// HalfDone are the instances whose live rescue it had begun and not brought to
	// an end: their guests may be suspended, mirrored, or on some of their new disks.
	// Empty while it is running.
	HalfDone []HalfDone `json:"half_done,omitempty"`
}

// HalfDone is an instance in the middle of a live rescue that nobody works on.
type HalfDone struct {
	UUID   string `json:"uuid"`
	Domain string `json:"domain"`
	Name   string `json:"name,omitempty"`
	Last   string `json:"last,omitempty"` // its last journal point
}

// Unfinished returns the runs that have not come to their end, the newest first. A
// journal that can't be read is told in its run.
func (r Runs) Unfinished(ctx context.Context) ([]UnfinishedRun, error) {
	all, err := r.All(ctx)
	if err != nil {
		return nil, err
	}
	unfinished := []UnfinishedRun{}
	for _, status := range all {
		if status.State == recover.RunFinished {
			continue
		}
		u := UnfinishedRun{Run: status.Run, Command: status.Command, State: status.State, Started: status.Started, Error: status.Error}
		if status.State != recover.RunRunning {
			var err error
			if u.HalfDone, err = halfDone(r.state, status.Run); err != nil && u.Error == "" {
				u.Error = err.Error()
			}
		}
		unfinished = append(unfinished, u)
	}
	return unfinished, nil
}

// halfDone returns the instances of an interrupted run whose live rescue it had
// begun and not settled, by domain name. Of a damaged journal what can be read
// counts, beside the error.
func halfDone(state statedir.Dir, run string) ([]HalfDone, error) {
	records, err := journal.Read(state.Run(run))
	whole, _, perr := journal.PlanOf(records)
	priors, rerr := journal.HistoriesOf(records)
	planned := map[string]recover.InstancePlan{}
	for _, todo := range whole.Instances {
		planned[todo.UUID] = todo
	}
	last := map[string]string{}
	for _, r := range records {
		last[r.Instance] = r.Point()
	}
	var half []HalfDone
	for _, uuid := range slices.Sorted(maps.Keys(priors)) {
		p, todo := priors[uuid], planned[uuid]
		if p.Replanned != nil {
			todo = *p.Replanned
		}
		if todo.Action == recover.ActionLive && p.Begun && (p.Settlement == nil || !p.Settlement.Settled) {
			half = append(half, HalfDone{UUID: uuid, Domain: todo.Domain, Name: todo.Name, Last: last[uuid]})
		}
	}
	slices.SortFunc(half, func(a, b HalfDone) int { return cmp.Compare(a.Domain, b.Domain) })
	return half, errors.Join(err, perr, rerr)
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
		priors, err := journal.HistoriesOf(records)
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("run", id).Msg("the journal of a run is damaged")
		}
		for uuid, p := range priors {
			if p.Begun && (p.Settlement == nil || !p.Settlement.Settled) {
				unsettled[uuid] = id
			}
		}
	}
	return unsettled, nil
}
