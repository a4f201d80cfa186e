package recover

import (
	"testing"
	"time"
)

func TestTheProofIsTheBestThatTheHostCanAndTheOperatorAccepts(t *testing.T) {
	for name, c := range map[string]struct {
		wish    Verify
		export  bool
		seconds int
		want    Verify
	}{
		"by default, while it runs":                 {VerifyDefault, true, 1000, VerifyRunning},
		"an old libvirt and a small disk":           {VerifyDefault, false, 5, VerifyFull},
		"an old libvirt and a large disk":           {VerifyDefault, false, 1000, VerifyStructure},
		"asked for under the suspend, however long": {VerifyFull, true, 1000, VerifyFull},
		"asked for alone":                           {VerifyStructure, true, 5, VerifyStructure},
		"asked for what this host can't do":         {VerifyRunning, false, 5, VerifyStructure},
	} {
		v := &verification{t: newTask(&run{plan: Plan{Options: Options{Verify: c.wish}}}, InstancePlan{})}
		v.choose(MirrorSupport{Export: c.export}, time.Duration(c.seconds)*time.Second)
		if v.how != c.want {
			t.Errorf("%s: %q, want %q", name, v.how, c.want)
		}
		if c.want == VerifyStructure && c.wish != VerifyStructure && len(v.t.notes()) == 0 {
			t.Errorf("%s: nobody is told", name)
		}
	}
}
