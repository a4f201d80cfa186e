package qcow2

import (
	"strings"
	"testing"
)

func TestProgressIsToldAndTheRestKept(t *testing.T) {
	var told []float64
	out := "    (0.00/100%)\r    (12.50/100%)\rWarning: x\r    (100.00/100%)\rImages are identical.\n"
	said := followProgress(strings.NewReader(out), func(share float64) { told = append(told, share) })
	if len(told) != 3 || told[1] != 0.125 || told[2] != 1 {
		t.Errorf("told %v", told)
	}
	if said != "Warning: x\nImages are identical.\n" {
		t.Errorf("said %q", said)
	}
	if long := followProgress(strings.NewReader(strings.Repeat("x", 1<<20)), nil); len(long) > maxLine {
		t.Errorf("%d bytes are kept", len(long))
	}
}

func FuzzParseProgress(f *testing.F) {
	for _, line := range []string{"    (12.34/100%)", "(100.00/100%)", "(NaN/100%)", "(-1/100%)", "Images are identical."} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		share, ok := parseProgress(line)
		if ok != (share >= 0 && share <= 1 && ok) {
			t.Errorf("%q: %v %v", line, share, ok)
		}
		if !ok && share != 0 {
			t.Errorf("%q: %v without ok", line, share)
		}
	})
}
