package lab

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseConsole(t *testing.T) {
	tests := map[string]struct {
		console string
		want    []Boot
	}{
		"empty":                   {"", nil},
		"no line of the lab":      {"[    0.0] Linux\r\nLABEL x\n", nil},
		"a line without its end":  {"LAB boot=1", nil},
		"lines before any boot":   {"LAB beat=7\n", []Boot{{Disks: map[string]string{}, Beats: []int{7}, Lines: []string{"beat=7"}}}},
		"a number that is no one": {"LAB beat=x\n", []Boot{{Disks: map[string]string{}, Lines: []string{"beat=x"}}}},
		"two boots": {
			"LAB boot=1 payload=new sha256=ab\r\n[ 1.0] noise\nLAB lastbeat=0 gaps=0\nLAB ready\nLAB beat=1\nLAB beat=2\n" +
				"LAB boot=2 payload=ok sha256=ab\nLAB disk=vdb payload=BAD sha256=cd\nLAB writer=ok last=9\nLAB lastbeat=3 gaps=1\n",
			[]Boot{
				{Number: 1, Payload: "new", SHA256: "ab", Disks: map[string]string{}, Ready: true, Beats: []int{1, 2},
					Lines: []string{"boot=1 payload=new sha256=ab", "lastbeat=0 gaps=0", "ready", "beat=1", "beat=2"}},
				{Number: 2, Payload: "ok", SHA256: "ab", Disks: map[string]string{"vdb": "BAD"}, Writer: "ok", LastBeat: 3, Gaps: 1,
					Lines: []string{"boot=2 payload=ok sha256=ab", "disk=vdb payload=BAD sha256=cd", "writer=ok last=9", "lastbeat=3 gaps=1"}},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, ParseConsole(strings.NewReader(test.console))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestALineIsSoughtAfterAMarkOnly(t *testing.T) {
	const first = "LAB boot=1 payload=new\nLAB fill payload=1\n"
	const then = "LAB beat=1\nLAB boot=2 payload=ok\nLAB fill payload=2\nLAB fill payload=3\n"
	mark := markOf(ParseConsole(strings.NewReader(first)))
	said := ParseConsole(strings.NewReader(first + then))
	for mark, want := range map[Mark]string{
		0: "fill payload=1", mark - 1: "fill payload=1", mark: "fill payload=2", mark + 3: "fill payload=3", mark + 4: "",
	} {
		if line, found := lineAfter(said, mark, "fill "); line != want || found != (want != "") {
			t.Errorf("after %d lines it found %q, %v; want %q", mark, line, found, want)
		}
	}
}

func FuzzParseConsole(f *testing.F) {
	f.Add("LAB boot=1 payload=new sha256=ab\nLAB beat=1\n")
	f.Add("LAB =\nLAB ready\nLAB disk=vdb\n")
	f.Fuzz(func(t *testing.T, console string) {
		lines := 0
		for _, boot := range ParseConsole(strings.NewReader(console)) {
			lines += len(boot.Lines)
		}
		if most := strings.Count(console, "LAB "); lines > most {
			t.Errorf("%d lines out of %d", lines, most)
		}
	})
}
