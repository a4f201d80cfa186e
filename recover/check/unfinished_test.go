package check_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

func TestALiveRescueThatWasKilledIsHalfDoneUntilItIsFinished(t *testing.T) {
	h := runtest.NewHost(t)
	h.HV.Support = recover.MirrorSupport{Synchronous: true, Export: true}
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	o := recovertest.Options(g)
	o.Mode = recover.ModeLive
	for point, half := range map[string]bool{"pin.done": false, "plan.done": false, "instance.begin": true, "mirror.begin": true} {
		t.Run(point, func(t *testing.T) {
			id, at := h.CrashIn(recover.CommandRescue, o, func(e *run.Engine, here func(string)) {
				e.Failpoint = func(p string) {
					if p == point {
						here(p)
					}
				}
			})
			if at != point {
				t.Fatalf("it came to %q", at)
			}
			defer func() { recovertest.Must(t, os.RemoveAll(statedir.Dir(h.Settings.StateDir).Run(id))) }()
			r, err := check.Make(t.Context(), check.SourcesOf(h.Settings, h.ScanAll), check.Options{})
			recovertest.Must(t, err)
			want := []string{"CRITICAL lost", "WARNING interrupted"}
			if half {
				want = []string{"CRITICAL lost", "CRITICAL half-done"}
			}
			if diff := cmp.Diff(want, found(r)); diff != "" {
				t.Error(diff)
			}
			left := runs.HalfDone{UUID: g.UUID, Domain: "instance-00000001", Name: "vm1", Last: point}
			if half && (r.HalfDone() != 1 || r.Runs[0].HalfDone[0] != left) {
				t.Errorf("half done: %+v", r.Runs)
			}
			if !half {
				return
			}
			// A run whose journal is damaged behind that is no less half done.
			records := filepath.Join(statedir.Dir(h.Settings.StateDir).Run(id), journal.FileName)
			data, err := os.ReadFile(records)
			recovertest.Must(t, err)
			recovertest.Must(t, os.WriteFile(records, append(data, "no record\nno record\n"...), 0o600))
			r, err = check.Make(t.Context(), check.SourcesOf(h.Settings, h.ScanAll), check.Options{})
			recovertest.Must(t, err)
			if r.HalfDone() != 1 || r.Runs[0].Error == "" {
				t.Errorf("with a damaged journal: %+v", r.Runs)
			}
		})
	}
}
