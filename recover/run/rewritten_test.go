package run_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/scan"
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
		doubted recover.Verdict // of a run that may replace files
		verdict recover.Verdict // of a scan that compares
		says    string
	}{
		"a base of which nothing has changed":         {base: true, doubted: intact, verdict: intact},
		"a base that Nova's image cache has touched":  {base: true, since: touch, doubted: conflict, verdict: intact, says: "the same bytes"},
		"a base that was overwritten":                 {base: true, since: write, doubted: conflict, verdict: conflict, says: "differs"},
		"a config drive of which nothing has changed": {doubted: intact, verdict: intact},
		"a config drive that was overwritten":         {since: write, doubted: conflict, verdict: conflict, says: "differs"},
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
			if v := h.Scan(g).Verdict; v != intact {
				t.Errorf("a quick scan: %s", v)
			}
			scan := func(s *scan.Scanner) (recover.Verdict, string) {
				report, err := s.Host(t.Context(), recover.Hints{})
				recovertest.Must(t, err)
				i := report.Instances[0]
				return i.Verdict, i.Files[slices.IndexFunc(i.Files, func(f recover.File) bool { return f.Path == path })].Reason
			}
			if v, _ := scan(h.Scanner().Doubting()); v != c.doubted {
				t.Errorf("a run that may replace files: %s, want %s", v, c.doubted)
			}
			if v, says := scan(h.Scanner().Thorough()); v != c.verdict || !strings.Contains(says, c.says) {
				t.Errorf("%s, %q", v, says)
			}
			o := recovertest.Options(g)
			o.ReplaceExisting = true
			report, err = h.Run(t.Context(), recover.CommandRescue, o)
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome == recover.OutcomeSkipped || r.Outcome == recover.OutcomeFailed {
				t.Errorf("the next run: %+v", r)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, g.Content[path]) {
				t.Errorf("after it the file has other content (%v)", err)
			}
		})
	}
}
