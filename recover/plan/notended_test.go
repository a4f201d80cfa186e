package plan_test

import (
	"os"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestAGuestThatMustNotBeEndedHasAWayOn(t *testing.T) {
	volume := func(d *recovertest.FakeDomain) {
		d.Disks = append(d.Disks, recover.Disk{Target: "vdb", Device: "disk", LostAtEnd: []string{"it is a volume"},
			Chain: []recover.Image{{Source: recover.SourceOther}}, ChainKnown: true})
	}
	unmirrored := func(d *recovertest.FakeDomain) { volume(d); d.Disks[0].Unmirrorable = "is copied on read" }
	for name, c := range map[string]struct {
		change func(*recovertest.FakeDomain)
		mode   recover.Mode
		says   []string
		never  string
	}{
		"a volume beside the lost disk": {
			change: volume, mode: recover.ModeReboot, says: []string{"because of disk vdb: it is a volume", "os-rescue --mode live brings"},
		},
		"the same, but it can't be mirrored": {
			change: unmirrored, mode: recover.ModeReboot,
			says:  []string{"disk vdb: it is a volume", "mode live, which would not end it, can't rescue it: disk vda is copied on read"},
			never: "--mode",
		},
		"the same, and mode auto": {
			change: unmirrored, mode: recover.ModeAuto,
			says: []string{"disk vdb: it is a volume", "can't rescue it: disk vda is copied on read"}, never: "--mode",
		},
		"a transient domain": {
			change: func(d *recovertest.FakeDomain) { d.Persistent = false }, mode: recover.ModeReboot,
			says: []string{"is transient", "virsh define ", "os-rescue --mode live brings"},
		},
		"a transient domain that can't be mirrored": {
			change: func(d *recovertest.FakeDomain) { d.Persistent = false; d.Disks[0].Unmirrorable = "is copied on read" },
			mode:   recover.ModeReboot, says: []string{"is transient", "virsh define ", "disk vda is copied on read"}, never: "--mode",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{})
			h.HV.Change(g.UUID, c.change)
			recovertest.Must(t, os.Remove(g.Disk))
			o := recovertest.Options(g)
			o.Mode = c.mode
			todo := h.Planned(g, recover.CommandRescue, o)
			if todo.Action != recover.ActionRefuse || c.never != "" && strings.Contains(todo.Refusal, c.never) {
				t.Errorf("%s %q", todo.Action, todo.Refusal)
			}
			for _, word := range c.says {
				if !strings.Contains(todo.Refusal, word) {
					t.Errorf("nothing about %q in %q", word, todo.Refusal)
				}
			}
			if o.Mode = recover.ModeLive; c.never == "" {
				if todo := h.Planned(g, recover.CommandRescue, o); todo.Action != recover.ActionLive {
					t.Errorf("live: %s %s", todo.Action, todo.Refusal)
				}
			}
		})
	}
}
