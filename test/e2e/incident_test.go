package e2e

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

// The incident: the whole tree is purged under a running guest.
func TestARunBringsAGuestBackWithEveryByte(t *testing.T) {
	l := lab.New(t, lab.Options{})
	i := l.Boot(t, lab.Spec{LogAppend: true, Ephemeral: true, Swap: "qcow2", ConfigDrive: true})
	i.WaitBeat(t, 3)
	l.DeleteTree(t)

	if got := scan(t, l)[i.UUID]; got.Verdict != recover.VerdictRecoverable {
		t.Fatalf("scan says %s: %v", got.Verdict, got.Reasons)
	}
	t.Log(run(t, l, 0, "scan").Stdout)
	beat := i.LastBeat()
	r := run(t, l, 0, "--all", "--offline", "--yes")
	t.Log(r.Stdout, r.Stderr)
	if boot := i.WaitBoot(t, 2); boot.Payload != "ok" {
		t.Errorf("after the rescue the payload is %s", boot.Payload)
	}
	i.Verify(t)
	if got := scan(t, l)[i.UUID]; got.Verdict != recover.VerdictIntact {
		t.Errorf("after the rescue scan says %s: %v", got.Verdict, got.Reasons)
	}
	_ = beat
}
