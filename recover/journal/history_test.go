package journal

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestAJournalSaysWhichFilesHaveGotTheirNamesBack(t *testing.T) {
	const path = "/i/u/disk"
	record := func(step string, phase recover.Phase) Record {
		return Record{Instance: "u", Step: step, Phase: phase, Path: path}
	}
	begun, linked := record(StepLinkBack, recover.PhaseBegin), record(StepLinkBack, recover.PhaseDone)
	for name, c := range map[string]struct {
		records []Record
		want    bool
	}{
		"begun":                {[]Record{begun}, false},
		"linked":               {[]Record{begun, linked}, true},
		"moved":                {[]Record{record(StepMoveBack, recover.PhaseDone)}, true},
		"its undo has begun":   {[]Record{begun, linked, {Instance: "u", Step: StepUnlink, Phase: recover.PhaseBegin}}, false},
		"linked a second time": {[]Record{begun, linked, {Instance: "u", Step: StepUnlink, Phase: recover.PhaseBegin}, linked}, true},
	} {
		histories, err := HistoriesOf(c.records)
		recovertest.Must(t, err)
		if got := histories["u"].Relinked[path]; got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
