package runs

import (
	"context"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover/journal"
)

// unsettled returns, by UUID, the instances that a run began to work on and did not
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
