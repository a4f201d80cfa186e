package hypervisor

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

// libvirt gives a guest that comes back paused from saved memory the reason of a migration.
func TestAGuestThatIsRestoredPausedIsNotMigrating(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	virsh(t, "define", writeXML(t, g.xml()))
	for _, step := range [][]string{{"start"}, {"suspend"}, {"managedsave"}, {"start"}} {
		virsh(t, append(step, g.name)...)
	}
	paths := []string{g.file("disk")}
	d := domain(ctx, t, c, g)
	if d.State != recover.StatePaused || d.PauseReason != recover.PauseMigration || d.Job != "" {
		t.Fatalf("%s (%s), job %q", d.State, d.PauseReason, d.Job)
	}
	if why := recover.HandsOff(d, recover.ActionPutBack, paths); why != "" {
		t.Errorf("a put-back: %s", why)
	}
	for _, action := range []recover.Action{recover.ActionReboot, recover.ActionLive, recover.ActionBackup} {
		if why := recover.HandsOff(d, action, paths); !strings.Contains(why, "virsh resume "+g.name) {
			t.Errorf("%s: %q", action, why)
		}
	}
	virsh(t, "resume", g.name)
	virsh(t, "suspend", g.name)
	if d := domain(ctx, t, c, g); d.PauseReason != recover.PauseUser || recover.HandsOff(d, recover.ActionReboot, paths) != "" {
		t.Errorf("after what the words name: %s (%s)", d.State, d.PauseReason)
	}
}
