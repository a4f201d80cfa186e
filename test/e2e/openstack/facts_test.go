//go:build openstack

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// What os-rescue is for: Nova destroys and undefines the domain before it looks
// for the files.
func TestAnOwnersHardRebootLosesAnInstanceWhoseFilesAreDeleted(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	g.onDeletedFiles(t)
	g.unharmed(t)
	if got := c.scan(t)[g.UUID]; got.Verdict != recover.VerdictRecoverable {
		t.Fatalf("scan says %s: %v", got.Verdict, got.Reasons)
	}

	if err := g.hardReboot(t); err != nil {
		t.Fatal(err)
	}
	var server *servers.Server
	waitFor(t, "the instance in ERROR", func() (err error) {
		if server, err = c.admin.Server(t.Context(), g.UUID); err != nil {
			return err
		}
		if server.Status != "ERROR" || server.TaskState != "" {
			return fmt.Errorf("it is %s (task %q)", server.Status, server.TaskState)
		}
		return nil
	})
	if !strings.Contains(server.Fault.Message, "No disk at") {
		t.Errorf("the fault is %q", server.Fault.Message)
	}
	if state := g.state(t); state != "" {
		t.Errorf("the domain is still there: %s", state)
	}
	if pid := g.QemuPID(); pid != 0 {
		t.Errorf("QEMU %d still runs", pid)
	}
}

func TestAnAdministratorsLockKeepsTheOwnersHardRebootAway(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	rescuer, err := bed.Client(t.Context(), openstack.Rescuer, openstack.RescueProject)
	if err != nil {
		t.Fatal(err)
	}
	if err := servers.Lock(t.Context(), rescuer.Compute, g.UUID).ExtractErr(); err != nil {
		t.Fatal(err)
	}

	if err := g.hardReboot(t); !gophercloud.ResponseCodeIs(err, http.StatusConflict) {
		t.Fatalf("the owner's hard reboot: %v, want a 409", err)
	}
	if err := servers.Unlock(t.Context(), g.owner.Compute, g.UUID).ExtractErr(); err == nil {
		t.Error("the owner could undo the administrator's lock")
	}
	g.unharmed(t)
	g.onDeletedFiles(t)
}

// About 15 s after a domain was destroyed Nova stops the instance that it takes
// to be off. The guest must be back before, or again.
func TestAnOfflineRescueHoldsItsOwnAgainstNovaCompute(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "web"})
	others := c.boot(t, "other", openstack.Spec{Name: "db"})
	web, other := guests[0], others[0]
	c.deleteTree(t)
	said := web.beat(t)

	ran := c.rescue(t, 0, "--project", "demo", "--offline") // it watches for a minute
	got := of(t, ran, web)
	if got.Outcome != recover.OutcomeRescued || len(ran.Instances) != 1 {
		t.Errorf("the report says %s", asJSON(t, ran))
	}
	web.isBack(t, 1+len(got.Notes), said)
	web.onPublishedFiles(t)
	if server, err := c.admin.AwaitStatus(t.Context(), web.UUID, "ACTIVE"); err != nil || server.PowerState != servers.RUNNING {
		t.Errorf("Nova says %+v, %v", server, err)
	}
	other.unharmed(t)
	other.onDeletedFiles(t)
}
