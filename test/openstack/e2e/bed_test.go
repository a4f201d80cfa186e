//go:build openstack

package e2e

import (
	"context"
	"net/http"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/instanceactions"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/services"

	"github.com/os-rescue/os-rescue/test/openstack"
)

// What the other cases rely on.

func TestARebootedGuestSaysThatItLostNothing(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web", Flavor: openstack.FlavorFull, ConfigDrive: true})[0]
	if g.disks != 2 {
		t.Errorf("it has %d further disks, want the ephemeral one and swap", g.disks)
	}
	said := g.beat(t)
	if err := g.hardReboot(t); err != nil {
		t.Fatal(err)
	}
	g.isBack(t, 1, said)
	g.onPublishedFiles(t)
}

func TestTheLeastPrivilegesReachEveryInstanceAndNothingElse(t *testing.T) {
	c := newCloud(t)
	least, err := bed.Client(t.Context(), openstack.LeastRescuer, openstack.RescueProject)
	if err != nil {
		t.Fatal(err)
	}
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	if _, err := least.Server(t.Context(), g.UUID); !gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
		t.Errorf("before it has any rights it sees the instance: %v", err)
	}

	if err := bed.LeastPrivilege(true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.LeastPrivilege(false); err != nil {
			t.Error(err)
		}
	})
	server, err := least.Server(t.Context(), g.UUID)
	if err != nil || server.Host == "" || server.InstanceName != g.Domain {
		t.Errorf("it sees %+v, %v", server, err)
	}
	if _, err := servers.List(least.Compute, servers.ListOpts{AllTenants: true, Host: server.Host}).AllPages(t.Context()); err != nil {
		t.Error(err)
	}
	if err := servers.Lock(t.Context(), least.Compute, g.UUID).ExtractErr(); err != nil {
		t.Error(err)
	}
	if err := g.hardReboot(t); !gophercloud.ResponseCodeIs(err, http.StatusConflict) {
		t.Errorf("its lock is no administrator's: the owner's reboot gets %v", err)
	}
	if err := servers.Reboot(t.Context(), least.Compute, g.UUID, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr(); err != nil {
		t.Error(err)
	}
	if err := servers.Unlock(t.Context(), least.Compute, g.UUID).ExtractErr(); err != nil {
		t.Error(err)
	}
	if _, err := services.List(least.Compute, services.ListOpts{Binary: "nova-compute"}).AllPages(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := instanceactions.List(least.Compute, g.UUID, nil).AllPages(t.Context()); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"delete":   servers.Delete(t.Context(), least.Compute, g.UUID).ExtractErr(),
		"snapshot": servers.CreateImage(t.Context(), least.Compute, g.UUID, servers.CreateImageOpts{Name: "x"}).Err,
		"reset":    servers.ResetState(t.Context(), least.Compute, g.UUID, servers.StateError).ExtractErr(),
	} {
		if !gophercloud.ResponseCodeIs(err, http.StatusForbidden) {
			t.Errorf("%s: %v, want a 403", what, err)
		}
	}
}

func TestACellThatIsDownLeavesItsInstancesUnknown(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	t.Cleanup(func() {
		if err := bed.CellUp(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := bed.CellDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	server, err := c.admin.Server(t.Context(), g.UUID)
	if err != nil || server.Status != "UNKNOWN" || server.ID != g.UUID {
		t.Errorf("Nova shows %+v, %v", server, err)
	}
	if err := bed.CellUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.AwaitStatus(t.Context(), g.UUID, "ACTIVE"); err != nil {
		t.Error(err)
	}
	g.unharmed(t)
}
