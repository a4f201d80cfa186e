package recover

import (
	"context"

	"github.com/rs/zerolog"
)

// unsettled returns the instances that unfinished runs have begun to work on and
// not brought to an end, with the run of each. The run that holds the lock now
// is left out.
func (e *Engine) unsettled(ctx context.Context) (map[string]string, error) {
	state := stateDir(e.Settings.StateDir)
	ids, err := state.list()
	if err != nil {
		return nil, err
	}
	busy, running := state.running()
	unsettled := map[string]string{}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if running && busy.Run == id {
			continue
		}
		// Of a damaged journal what can be read counts: one run's trouble must
		// not stop every other command.
		records, _ := readJournal(state.run(id))
		priors, err := priorsOf(records)
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("run", id).Msg("its journal is damaged")
		}
		for uuid, p := range priors {
			if p.begun && (p.settlement == nil || !p.settlement.Settled) {
				unsettled[uuid] = id
			}
		}
	}
	return unsettled, nil
}
