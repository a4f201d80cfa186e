//go:build openstack

package e2e

import (
	"net/http"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/os-rescue/os-rescue/test/openstack"
)

// A role of os-rescue's own, as docs/openstack.md has it, is enough for a rescue,
// and for little else.
func TestARoleOfItsOwnIsEnoughForARescue(t *testing.T) {
	c := newCloud(t)
	env := bed.Env(openstack.LeastRescuer, openstack.RescueProject)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	said := g.beat(t)
	ends(t, c.start(t, env, "--project", "demo", "--yes"), 3, "without the role's rights")
	g.unharmed(t)

	if err := bed.LeastPrivilege(true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.LeastPrivilege(false); err != nil {
			t.Error(err)
		}
	})
	ends(t, c.start(t, env, "--project", "demo", "--yes"), 0, "with the role's rights")
	g.isBack(t, 1, said)
	c.inService(t, g)
	least, err := bed.Client(t.Context(), openstack.LeastRescuer, openstack.RescueProject)
	if err != nil {
		t.Fatal(err)
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
