package chaos

import (
	"strings"
	"testing"
)

// known is a trial that once had a finding.
type known struct {
	name, script string
}

func knownFindings() []known {
	return []known{
		{"a write after the last look, before QEMU's end", "reboot : qcow2 : run@destroy.begin#1=somebody-resumes/0"},
		{"keeper and QEMU end at once, and only the run has the disk", "reboot : qcow2 : run@pin.done#1=kill-keeper+kill-qemu/0"},
		{"a disk whose console log nobody holds any more",
			"reboot : raw : run@copy.begin#1=kill-keeper+kill-qemu/0 run@compare.begin#1=eio-target/0"},
	}
}

func TestWhatARescueOnceLost(t *testing.T) {
	h := newHost(t)
	for _, k := range knownFindings() {
		t.Run(k.name, func(t *testing.T) {
			plays(t, h, k.script)
		})
	}
}

func TestAScriptIsReadAsItIsWritten(t *testing.T) {
	for seed := range uint64(500) {
		want := draw(seed)
		got, err := parseScript(want.String())
		if err != nil || got.String() != want.String() {
			t.Fatalf("%s is read as %s: %v", want, got, err)
		}
	}
	for _, bad := range []string{
		"", "reboot", "reboot : qcow2", "die : qcow2 :",
		"live : qcow2 : run@copy.done=kill-run/0", "live : raw : run@x#1=die/0",
	} {
		if _, err := parseScript(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestTheLedgerMissesWhatIsNotThere(t *testing.T) {
	l := newLedger()
	data := []byte(strings.Repeat(string(rune(firstPattern)), diskSize))
	number, block, pattern := l.attempt()
	if text := l.missing(data); text != "" {
		t.Errorf("a write that may not have happened is missed: %s", text)
	}
	l.acknowledge(number, block, pattern)
	if l.missing(data) == "" {
		t.Error("an acknowledged block is not missed")
	}
	for n := range blockSize {
		data[block*blockSize+n] = pattern
	}
	if text := l.missing(data); text != "" {
		t.Errorf("a block that is there is missed: %s", text)
	}
	data[block*blockSize] = 0
	if l.missing(data) == "" {
		t.Error("a torn block is not missed")
	}
}
