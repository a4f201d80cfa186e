package recover

import (
	"context"

	"github.com/rs/zerolog"
)

// unsettled returns, by UUID, the instances that a run began to work on and did not
// settle, each with the name of that run. It skips the run that holds the lock now. A
// journal that can't be read in full is no error.
func (r hostRuns) unsettled(ctx context.Context) (map[string]string, error) {
	ids, err := r.state.list()
	if err != nil {
		return nil, err
	}
	busy, running := r.state.running()
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
		records, _ := readJournal(r.state.run(id))
		priors, err := priorsOf(records)
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("run", id).Msg("the journal of a run is damaged")
		}
		for uuid, p := range priors {
			if p.begun && (p.settlement == nil || !p.settlement.Settled) {
				unsettled[uuid] = id
			}
		}
	}
	return unsettled, nil
}
