package recover

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestALiveRescueThatWasKilledIsHalfDoneUntilItIsFinished(t *testing.T) {
	h := newHost(t)
	h.hv.support = MirrorSupport{Synchronous: true, Export: true}
	g := h.add(1, guestOptions{base: "b"})
	h.purge()
	o := options(g)
	o.Mode = ModeLive
	for point, half := range map[string]bool{"pin.done": false, "plan.done": false, "instance.begin": true, "mirror.begin": true} {
		t.Run(point, func(t *testing.T) {
			run, at := h.crashIn(CommandRescue, o, func(e *Engine, here func(string)) {
				e.Failpoint = func(p string) {
					if p == point {
						here(p)
					}
				}
			})
			if at != point {
				t.Fatalf("it came to %q", at)
			}
			defer func() { must(t, os.RemoveAll(stateDir(h.settings.StateDir).run(run))) }()
			r, err := Check(t.Context(), hostSources(h.settings, h.scanAll), CheckOptions{})
			must(t, err)
			want := []string{"CRITICAL lost", "WARNING interrupted"}
			if half {
				want = []string{"CRITICAL lost", "CRITICAL half-done"}
			}
			if diff := cmp.Diff(want, found(r)); diff != "" {
				t.Error(diff)
			}
			left := HalfDone{UUID: g.uuid, Domain: "instance-00000001", Name: "vm1", Last: point}
			if half && (r.HalfDone() != 1 || r.Runs[0].HalfDone[0] != left) {
				t.Errorf("half done: %+v", r.Runs)
			}
			if !half {
				return
			}
			// A run whose journal is damaged behind that is no less half done.
			journal := filepath.Join(stateDir(h.settings.StateDir).run(run), journalName)
			data, err := os.ReadFile(journal)
			must(t, err)
			must(t, os.WriteFile(journal, append(data, "no record\nno record\n"...), 0o600))
			r, err = Check(t.Context(), hostSources(h.settings, h.scanAll), CheckOptions{})
			must(t, err)
			if r.HalfDone() != 1 || r.Runs[0].Error == "" {
				t.Errorf("with a damaged journal: %+v", r.Runs)
			}
		})
	}
}
