package hypervisor

import (
	"strings"
	"testing"

	"libvirt.org/go/libvirt"

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

func TestEachStateThatHasACureOfItsOwnIsSeen(t *testing.T) {
	for code, want := range map[libvirt.DomainState]recover.DomainState{
		libvirt.DOMAIN_RUNNING:     recover.StateRunning,
		libvirt.DOMAIN_PMSUSPENDED: recover.StatePMSuspended,
		libvirt.DOMAIN_CRASHED:     recover.StateCrashed,
		libvirt.DOMAIN_SHUTDOWN:    recover.StateOther,
	} {
		if got := domainState(code); got != want {
			t.Errorf("%d: %s; want %s", code, got, want)
		}
	}
	for code, want := range map[libvirt.DomainPausedReason]recover.PauseReason{
		libvirt.DOMAIN_PAUSED_USER:            recover.PauseUser,
		libvirt.DOMAIN_PAUSED_MIGRATION:       recover.PauseMigration,
		libvirt.DOMAIN_PAUSED_POSTCOPY_FAILED: recover.PausePostcopy,
		libvirt.DOMAIN_PAUSED_WATCHDOG:        recover.PauseOther,
	} {
		if got := pauseReason(code); got != want {
			t.Errorf("paused, %d: %s; want %s", code, got, want)
		}
	}
}
