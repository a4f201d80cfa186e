package oracle

import (
	"slices"
	"testing"
)

func TestAShrunkScriptHasOnlyTheStepsThatItNeeds(t *testing.T) {
	long, err := parseScript("qcow2+eph0 raw qcow2+config : write/0/1 stop/1/2 write/2/3 remove-dir/0/4 start/1/5 rescue/0/6 write/0/7")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	got := shrink(long, func(s script) bool {
		asked++
		has := func(kind string) bool {
			return slices.ContainsFunc(s.Steps, func(s step) bool { return s.Kind == kind })
		}
		return has("stop") && has("rescue") && len(s.Layouts) > 1
	}, 100)
	if want := "qcow2 raw : stop/1/2 rescue/0/6"; got.String() != want {
		t.Errorf("%s, want %s, after %d tries", got, want, asked)
	}
	if len(long.Steps) != 7 || len(long.Layouts) != 3 {
		t.Errorf("the long script was changed: %s", long)
	}
	asked = 0
	if got := shrink(long, func(script) bool { asked++; return false }, 5); asked != 5 || got.String() != long.String() {
		t.Errorf("after %d tries of 5 it is %s", asked, got)
	}
}

func TestAScriptIsReadAsItIsWritten(t *testing.T) {
	const text = "qcow2+eph0+config raw : write/0/1 remove-dir/1/1048575"
	s, err := parseScript(text)
	if err != nil || s.String() != text {
		t.Errorf("%q, %v", s, err)
	}
	for _, wrong := range []string{"", "write/0/1", " : write/0/1", "raw : write", "raw : fly/0/1", "raw : write/-1/1", "raw : write/0/x"} {
		if _, err := parseScript(wrong); err == nil {
			t.Errorf("%q is read", wrong)
		}
	}
}

func TestASeedDrawsTheSameSequenceAgain(t *testing.T) {
	draw := func(seed uint64) script {
		c := newChance(seed, func(string) bool { return true })
		s := script{Layouts: c.layouts()}
		for range 50 {
			s.Steps = append(s.Steps, c.step(len(s.Layouts)))
		}
		return s
	}
	first, again, other := draw(7).String(), draw(7).String(), draw(8).String()
	if first != again || first == other {
		t.Error("seed 7 does not draw one sequence, and its own")
	}
}

func TestContentTellsOneChangedByte(t *testing.T) {
	c := baseContent()
	data := c.bytes(chunks)
	if got, err := contentOf(data); err != nil || got.diff(c) != "" {
		t.Errorf("%v, %v", got, err)
	}
	data[5*chunkSize+1]++
	if _, err := contentOf(data); err == nil {
		t.Error("a changed byte is not seen")
	}
	if other := (content{}); other.diff(c) == "" {
		t.Error("another content is not seen")
	}
}
