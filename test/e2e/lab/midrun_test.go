package e2e

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

func TestWhatHappensInMidRunLosesNothing(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true})
	for _, point := range []string{"copy.begin", "destroy.begin"} {
		t.Run("libvirtd is restarted at "+point, func(t *testing.T) {
			l.DeleteTree(t)
			said := v.LastBeat()
			r := at(t, l, point, func() { l.RestartLibvirtd(t) }, rescueArgs("--all")...)
			if r.Code != 0 {
				t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
			}
			v.isBack(t, 1)
			v.intact(t)
			if again := v.Boots()[v.boots-1]; again.LastBeat < said || again.Gaps != 0 {
				t.Errorf("beat %d was said before the suspend; on the disk are %d with %d gaps", said, again.LastBeat, again.Gaps)
			}
		})
	}
	t.Run("the guest powers itself off between pin and copy", func(t *testing.T) {
		l.DeleteTree(t)
		said := 0
		r := at(t, l, "plan.done", func() {
			v.WaitBeat(t, v.LastBeat()+1)
			said = v.LastBeat()
			v.PowerOff(t)
		}, rescueArgs("--all")...)
		if r.Code != 0 {
			t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
		}
		got := of(t, report(t, r), v)
		if got.Outcome != recover.OutcomeRescued || !strings.Contains(strings.Join(got.Notes, "\n"), "powered itself off") {
			t.Errorf("%s", asJSON(t, got))
		}
		if state := v.State(t); state != "shut off" {
			t.Errorf("its owner switched it off, and it is %s", state)
		}
		v.Start(t)
		v.isBack(t, 1)
		v.intact(t)
		if again := v.Boots()[v.boots-1]; again.LastBeat < said || again.Gaps != 0 {
			t.Errorf("beat %d was said before the end; on the disk are %d with %d gaps", said, again.LastBeat, again.Gaps)
		}
	})
}
