package live

import (
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

func TestTheProofIsTheBestThatTheHostCanAndTheOperatorAccepts(t *testing.T) {
	for name, c := range map[string]struct {
		wish    recover.Verify
		export  bool
		deadly  string // what QEMU may not survive an export for
		seconds int
		want    recover.Verify
	}{
		"by default, while it runs":                 {recover.VerifyDefault, true, "", 1000, recover.VerifyRunning},
		"an old libvirt and a small disk":           {recover.VerifyDefault, false, "", 5, recover.VerifyFull},
		"an old libvirt and a large disk":           {recover.VerifyDefault, false, "", 1000, recover.VerifyStructure},
		"asked for under the suspend, however long": {recover.VerifyFull, true, "an IOThread", 1000, recover.VerifyFull},
		"asked for alone":                           {recover.VerifyStructure, true, "an IOThread", 5, recover.VerifyStructure},
		"asked for what this host can't do":         {recover.VerifyRunning, false, "", 5, recover.VerifyFull},
		"an IOThread and a small disk":              {recover.VerifyDefault, true, "an IOThread", 5, recover.VerifyFull},
		"an IOThread and a large disk":              {recover.VerifyDefault, true, "an IOThread", 1000, recover.VerifyStructure},
		"asked for what its QEMU may not survive":   {recover.VerifyRunning, true, "an IOThread", 5, recover.VerifyFull},
	} {
		v := &verification{t: task.New(&task.Run{Plan: recover.Plan{Options: recover.Options{Verify: c.wish}}}, recover.InstancePlan{})}
		v.choose(recover.MirrorSupport{Export: c.export}, c.deadly, time.Duration(c.seconds)*time.Second)
		if v.how != c.want {
			t.Errorf("%s: %q, want %q", name, v.how, c.want)
		}
		told := strings.Join(v.t.Notes(), "; ")
		if weaker := c.wish != c.want && c.want != recover.VerifyRunning; weaker != (told != "") || weaker && !strings.Contains(told, c.deadly) {
			t.Errorf("%s: told is %q", name, told)
		}
	}
}
