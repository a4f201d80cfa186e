package hardreboot

import (
	"errors"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

// Nova destroys a domain before it looks for its files.
func TestAQEMUIsEndedOnlyIfAllThatItHasOpenIsKnown(t *testing.T) {
	qemu := recover.ProcessIdentity{PID: 10}
	for name, c := range map[string]struct {
		i       recover.Instance
		refused bool
		waits   bool
	}{
		"intact":     {i: recover.Instance{State: recover.StateRunning, PID: 10, Process: qemu, Verdict: recover.VerdictIntact}},
		"unaffected": {i: recover.Instance{State: recover.StateRunning, PID: 10, Process: qemu, Verdict: recover.VerdictUnaffected}},
		"deleted files that could not be matched": {refused: true,
			i: recover.Instance{State: recover.StateRunning, PID: 10, Process: qemu, Verdict: recover.VerdictUnknown}},
		"a disk deleted": {refused: true,
			i: recover.Instance{State: recover.StatePaused, PID: 10, Process: qemu, Verdict: recover.VerdictRecoverable}},
		"a QEMU that could not be looked into": {waits: true,
			i: recover.Instance{State: recover.StateRunning, PID: 10, Verdict: recover.VerdictUnknown}},
		"a QEMU of which libvirt has no PID": {waits: true,
			i: recover.Instance{State: recover.StateRunning, Verdict: recover.VerdictUnknown}},
		"off":     {i: recover.Instance{State: recover.StateShutOff, Verdict: recover.VerdictUnknown}},
		"crashed": {i: recover.Instance{State: recover.StateCrashed, Verdict: recover.VerdictRecoverable}},
		"crashed, and its QEMU is kept": {refused: true,
			i: recover.Instance{State: recover.StateCrashed, PID: 10, Process: qemu, Verdict: recover.VerdictUnknown}},
	} {
		t.Run(name, func(t *testing.T) {
			c.i.Reasons = []string{"a reason"}
			wait, err := mayEnd(c.i)
			if (wait != "") != c.waits || errors.Is(err, recover.ErrRefused) != c.refused || err != nil && !c.refused {
				t.Errorf("%q, %v", wait, err)
			}
			if said := wait != "" || err != nil; said && !strings.Contains(wait+errorText(err), "a reason") {
				t.Errorf("it does not say why: %q, %v", wait, err)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
