package live

import (
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

func TestTheProofIsTheBestThatTheHostCanAndTheOperatorAccepts(t *testing.T) {
	for name, c := range map[string]struct {
		wish    recover.Verify
		export  bool
		seconds int
		want    recover.Verify
	}{
		"by default, while it runs":                 {recover.VerifyDefault, true, 1000, recover.VerifyRunning},
		"an old libvirt and a small disk":           {recover.VerifyDefault, false, 5, recover.VerifyFull},
		"an old libvirt and a large disk":           {recover.VerifyDefault, false, 1000, recover.VerifyStructure},
		"asked for under the suspend, however long": {recover.VerifyFull, true, 1000, recover.VerifyFull},
		"asked for alone":                           {recover.VerifyStructure, true, 5, recover.VerifyStructure},
		"asked for what this host can't do":         {recover.VerifyRunning, false, 5, recover.VerifyStructure},
	} {
		v := &verification{t: task.New(&task.Run{Plan: recover.Plan{Options: recover.Options{Verify: c.wish}}}, recover.InstancePlan{})}
		v.choose(recover.MirrorSupport{Export: c.export}, time.Duration(c.seconds)*time.Second)
		if v.how != c.want {
			t.Errorf("%s: %q, want %q", name, v.how, c.want)
		}
		if c.want == recover.VerifyStructure && c.wish != recover.VerifyStructure && len(v.t.Notes()) == 0 {
			t.Errorf("%s: nobody is told", name)
		}
	}
}
