package run_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// TestABaseThatAnotherHostPutsBackMeanwhileIsKeptIfItIsTheSame: hosts that share _base
// rescue at once. The file appears when this host's copy waits for its name.
func TestABaseThatAnotherHostPutsBackMeanwhileIsKeptIfItIsTheSame(t *testing.T) {
	another := func(b []byte) []byte { b[len(b)-1]++; return b }
	for name, c := range map[string]struct {
		change  func(content []byte) []byte
		replace bool
		outcome recover.Outcome
		says    string
	}{
		"the same bytes":                     {nil, false, recover.OutcomeRescued, "appeared during the run with the same content"},
		"the same bytes, and may replace":    {nil, true, recover.OutcomeRescued, "appeared during the run with the same content"},
		"one other byte":                     {another, false, recover.OutcomeSkipped, "differs"},
		"one byte less":                      {func(b []byte) []byte { return b[1:] }, false, recover.OutcomeSkipped, "differs"},
		"one other byte, and may replace it": {another, true, recover.OutcomeRescued, "is now"},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			h.Purge()
			content := slices.Clone(g.Content[g.Base])
			if c.change != nil {
				content = c.change(content)
			}
			var theirs os.FileInfo
			e := h.Engine()
			e.Failpoint = func(point string) {
				if point != "publish.begin" || theirs != nil {
					return
				}
				recovertest.Must(t, os.MkdirAll(filepath.Dir(g.Base), 0o755))
				recovertest.Must(t, os.WriteFile(g.Base, content, 0o600))
				var err error
				theirs, err = os.Stat(g.Base)
				recovertest.Must(t, err)
			}
			o := recovertest.OfflineOptions(g)
			o.ReplaceExisting = c.replace
			s, err := e.Prepare(t.Context(), recover.CommandRescue, o)
			recovertest.Must(t, err)
			defer s.Close()
			report, err := s.Execute(t.Context())
			recovertest.Must(t, err)
			r := g.Report(report)
			if said := strings.Join(append(r.Notes, r.Error), "; "); r.Outcome != c.outcome || !strings.Contains(said, c.says) {
				t.Fatalf("%s: %s", r.Outcome, said)
			}
			if left := h.Staged(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if r.Outcome != recover.OutcomeRescued {
				return
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
			now, err := os.Stat(g.Base)
			recovertest.Must(t, err)
			if kept := os.SameFile(theirs, now); kept != (c.change == nil) {
				t.Errorf("theirs was kept: %v", kept)
			}
			if now.Mode().Perm() != 0o644 {
				t.Errorf("it has mode %v", now.Mode())
			}
			if v := h.Scan(g).Verdict; v != recover.VerdictIntact {
				t.Errorf("afterwards it is %s", v)
			}
		})
	}
}
