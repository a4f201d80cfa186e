package run_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// A file that was put back is what its guest still has open only until somebody writes to it.
// Nova's image cache sets the times of the images in use, and changes nothing.
func TestAFileThatWasPutBackIsComparedAgainOnceItWasWritten(t *testing.T) {
	touch := func(path string, _ []byte) error { return os.Chtimes(path, time.Now(), time.Now().Add(time.Second)) }
	write := func(path string, content []byte) error {
		content = slices.Clone(content)
		content[9]++
		return os.WriteFile(path, content, 0o644) // as cp does: in place
	}
	const intact, conflict = recover.VerdictIntact, recover.VerdictConflict
	for name, c := range map[string]struct {
		base    bool
		since   func(path string, content []byte) error
		hurried recover.Verdict // of a scan that compares nothing
		verdict recover.Verdict // of one that does
		says    string
	}{
		"a base of which nothing has changed":         {base: true, hurried: intact, verdict: intact},
		"a base that Nova's image cache has touched":  {base: true, since: touch, hurried: conflict, verdict: intact, says: "the same bytes"},
		"a base that was overwritten":                 {base: true, since: write, hurried: conflict, verdict: conflict, says: "differs"},
		"a config drive of which nothing has changed": {hurried: intact, verdict: intact},
		"a config drive that was overwritten":         {since: write, hurried: conflict, verdict: conflict, says: "differs"},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", Config: true})
			path := g.Base
			if !c.base {
				path = filepath.Join(g.Dir, "disk.config")
			}
			recovertest.Must(t, os.Remove(path))
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			if c.since != nil {
				recovertest.Must(t, c.since(path, g.Content[path]))
			}
			if v := h.Scan(g).Verdict; v != c.hurried {
				t.Errorf("a quick scan: %s, want %s", v, c.hurried)
			}
			trusting, err := h.Scanner().Trusting().Host(t.Context(), recover.Hints{})
			recovertest.Must(t, err)
			if v := trusting.Instances[0].Verdict; v != recover.VerdictIntact {
				t.Errorf("a trusting scan: %s", v)
			}
			thorough, err := h.Scanner().Thorough().Host(t.Context(), recover.Hints{})
			recovertest.Must(t, err)
			i := thorough.Instances[0]
			n := slices.IndexFunc(i.Files, func(f recover.File) bool { return f.Path == path })
			if i.Verdict != c.verdict || !strings.Contains(i.Files[n].Reason, c.says) {
				t.Errorf("%s, %q", i.Verdict, i.Files[n].Reason)
			}
			report, err = h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if r := g.Report(report); (r.Outcome == recover.OutcomeSkipped) != (c.verdict == recover.VerdictConflict) {
				t.Errorf("the next run: %+v", r)
			}
		})
	}
}
