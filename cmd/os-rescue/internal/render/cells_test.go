package render

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/os-rescue/os-rescue/recover"
)

func FuzzTableCells(f *testing.F) {
	f.Add("web", "/i/disk", true)
	f.Add("\x1b[31;1mred\x1b[0m\nx", "\x9b\u202e|\t", true)
	f.Add("漢字\u0301\U0001f600", strings.Repeat("x ", 100), false)
	f.Fuzz(func(t *testing.T, name, path string, color bool) {
		text := Text{Again: "os-rescue", Color: color}
		bare := written(t, func(b *bytes.Buffer) error { return WriteScan(b, text, hostilely("web", "/i/disk")) })
		shown := written(t, func(b *bytes.Buffer) error { return WriteScan(b, text, hostilely(name, path)) })
		if name != "" && strings.Count(shown, "\n") != strings.Count(bare, "\n") {
			t.Errorf("%d lines instead of %d:\n%s", strings.Count(shown, "\n"), strings.Count(bare, "\n"), shown)
		}
		if strings.Count(shown, "\x1b") != strings.Count(bare, "\x1b") || !utf8.ValidString(shown) ||
			strings.ContainsAny(shown, "\r\t\u009b\u202e\u200b") {
			t.Errorf("%q", shown)
		}
	})
}

// hostilely is a scan in which others have named everything that they can.
func hostilely(name, path string) recover.Report {
	return recover.Report{Host: name, Instances: []recover.Instance{{
		UUID: name, Domain: name, Name: name, ProjectName: name, State: recover.DomainState(name), Verdict: recover.VerdictRecoverable,
		Files: []recover.File{{Path: path, Role: recover.RoleDisk, Target: name, State: recover.FileDeleted, Reason: "because " + path,
			Holders: []recover.Holder{{PID: 1, Process: name}}}},
	}}}
}
