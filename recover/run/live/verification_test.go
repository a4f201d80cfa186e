package live

import (
	"errors"
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
		v.mirrors = &mirrors{all: []*mirror{{want: recover.FilePlan{Format: "qcow2"}}}}
		support, took := recover.MirrorSupport{Export: c.export}, time.Duration(c.seconds)*time.Second
		if err := v.choose(support, c.deadly, took); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if v.how != c.want {
			t.Errorf("%s: %q, want %q", name, v.how, c.want)
		}
		told := strings.Join(v.t.Notes(), "; ")
		if weaker := c.wish != c.want && c.want != recover.VerifyRunning; weaker != (told != "") || weaker && !strings.Contains(told, c.deadly) {
			t.Errorf("%s: told is %q", name, told)
		}
		// Nobody but who asks for it has a raw disk moved without a proof: nothing of it can be checked.
		raw := &verification{t: v.t, mirrors: &mirrors{all: []*mirror{{want: recover.FilePlan{Format: "raw"}}}}}
		err := raw.choose(support, c.deadly, took)
		if refused := c.want == recover.VerifyStructure && c.wish != c.want; errors.Is(err, recover.ErrRefused) != refused ||
			!refused && (err != nil || raw.how != c.want) {
			t.Errorf("%s, raw: %q, %v", name, raw.how, err)
		}
	}
}
