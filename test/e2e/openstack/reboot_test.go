//go:build openstack

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// Post-incident: only what is meant, whole and here is rebooted.
func TestRebootRebootsWhatIsWholeAndRefusesWhatIsNot(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "web"}, openstack.Spec{Name: "lost"}, openstack.Spec{Name: "off"})
	web, lost, off := guests[0], guests[1], guests[2]
	if err := servers.Stop(t.Context(), off.owner.Compute, off.UUID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.AwaitStatus(t.Context(), off.UUID, "SHUTOFF"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(lost.Dir); err != nil {
		t.Fatal(err)
	}
	said := web.beat(t)

	ran := c.rescue(t, 1, "reboot", "--project", "demo", "--max-parallel", "2")
	if got := of(t, ran, web); got.Outcome != recover.OutcomeRescued {
		t.Errorf("web: %s", asJSON(t, got))
	}
	if got := of(t, ran, lost); got.Outcome != recover.OutcomeSkipped || !strings.Contains(got.Error, "rescue it first") {
		t.Errorf("lost: %s", asJSON(t, got))
	}
	if len(ran.Instances) != 2 || len(ran.Warnings) != 1 || !strings.Contains(ran.Warnings[0], "--state") {
		t.Errorf("the report says %s", asJSON(t, ran))
	}
	web.isBack(t, 1, said)
	lost.unharmed(t)
	if n := c.reboots(t, lost); n != 0 {
		t.Errorf("the lost one was rebooted %d times", n)
	}
	if n := c.reboots(t, web); n != 1 {
		t.Errorf("web was rebooted %d times", n)
	}

	ran = c.rescue(t, 0, "reboot", "--instance", off.UUID, "--state", "SHUTOFF")
	if got := of(t, ran, off); got.Outcome != recover.OutcomeRescued {
		t.Errorf("off: %s", asJSON(t, got))
	}
	off.isBack(t, 1, 0)
}

// One place reboots for many hosts, by their scans.
func TestRebootByTheScansOfOtherHosts(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "web"}, openstack.Spec{Name: "lost"})
	web, lost := guests[0], guests[1]
	if err := os.RemoveAll(lost.Dir); err != nil {
		t.Fatal(err)
	}
	scan := filepath.Join(t.TempDir(), "scan.json")
	write(t, scan, c.run(t, 0, "scan", "--output", "json").Stdout)
	said := web.beat(t)

	ran := c.rescue(t, 1, "reboot", "--all", "--scan-report", scan)
	if got := of(t, ran, web); got.Outcome != recover.OutcomeRescued {
		t.Errorf("web: %s", asJSON(t, got))
	}
	if got := of(t, ran, lost); got.Outcome != recover.OutcomeSkipped {
		t.Errorf("lost: %s", asJSON(t, got))
	}
	web.isBack(t, 1, said)
	lost.unharmed(t)

	stale := c.rescue(t, 1, "reboot", "--instance", web.UUID, "--scan-report", scan, "--scan-max-age", "1s")
	if got := of(t, stale, web); got.Outcome != recover.OutcomeSkipped || !strings.Contains(got.Error, "scan that host again") {
		t.Errorf("with an old scan: %s", asJSON(t, got))
	}
	web.unharmed(t)
}

// An instance that is being rebooted is waited for; a run that was killed asks no
// second time.
func TestRebootIsAskedForOnce(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	said := g.beat(t)
	if err := g.hardReboot(t); err != nil {
		t.Fatal(err)
	}
	c.rescue(t, 0, "reboot", "--instance", g.UUID)
	g.isBack(t, 1, said)
	if n := c.reboots(t, g); n != 1 {
		t.Errorf("it was rebooted %d times, want only the owner's once", n)
	}

	said = g.beat(t)
	ends(t, c.start(t, []string{"OS_RESCUE_FAILPOINT=reboot.done=kill"}, "reboot", "--instance", g.UUID, "--yes"), 137)
	c.run(t, 0, "resume", "--yes")
	g.isBack(t, 1, said)
	if n := c.reboots(t, g); n != 2 {
		t.Errorf("it was rebooted %d times, want one more", n)
	}
}

// A suspended instance's memory is in a file that a hard reboot throws away.
func TestSavedMemoryIsLostOnlyByConsent(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	if err := servers.Suspend(t.Context(), g.owner.Compute, g.UUID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.AwaitStatus(t.Context(), g.UUID, "SUSPENDED"); err != nil {
		t.Fatal(err)
	}
	ran := c.rescue(t, 1, "reboot", "--instance", g.UUID, "--state", "SUSPENDED")
	if got := of(t, ran, g); !strings.Contains(got.Error, "--accept-loss saved-memory") {
		t.Errorf("without consent: %s", asJSON(t, got))
	}
	if err := c.hasStatus(t, g, "SUSPENDED"); err != nil {
		t.Error(err)
	}
	c.rescue(t, 0, "reboot", "--instance", g.UUID, "--state", "SUSPENDED", "--accept-loss", "saved-memory")
	if _, err := g.AwaitBoot(t.Context(), 2); err != nil {
		t.Error(err)
	}
}

func TestRebootsGoInBatches(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "a"}, openstack.Spec{Name: "b"})
	ran := c.rescue(t, 0, "reboot", "--project", "demo", "--batch-size", "1", "--batch-wait", "3s", "--timeout", "2m")
	var ended, begun []time.Time
	for _, i := range ran.Instances {
		for _, s := range i.Steps {
			if s.Name == "reboot" {
				begun = append(begun, s.Started)
				ended = append(ended, s.Started.Add(time.Duration(s.Seconds*float64(time.Second))))
			}
		}
	}
	if len(begun) != 2 {
		t.Fatalf("the report says %s", asJSON(t, ran))
	}
	first := 0
	if begun[1].Before(begun[0]) {
		first = 1
	}
	if gap := begun[1-first].Sub(ended[first]); gap < 3*time.Second {
		t.Errorf("the second batch began %s after the first", gap)
	}
	for _, g := range guests {
		g.isBack(t, 1, 0)
		if n := c.reboots(t, g); n != 1 {
			t.Errorf("%s was rebooted %d times", g.Name, n)
		}
	}
}
