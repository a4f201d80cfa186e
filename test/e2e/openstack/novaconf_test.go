//go:build openstack

package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// withInstancesIn lets nova-compute have its instances in another directory for a case: the setting is in
// the second of its files, and refers to one of the first.
func withInstancesIn(t *testing.T, c *cloud, name string) {
	t.Helper()
	before, err := os.ReadFile(bed.ComputeConf())
	must(t, err)
	dir := filepath.Join(filepath.Dir(bed.InstancesPath()), name)
	must(t, exec.CommandContext(t.Context(), "install", "-d", "-o", "nova", "-g", "nova", dir).Run())
	t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(c.clean(ctx), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
		must(t, bed.Stop(ctx, openstack.NovaCompute))
		must(t, os.WriteFile(bed.ComputeConf(), before, 0o644))
		must(t, bed.Start(ctx, openstack.NovaCompute))
	})
	c.stop(t, openstack.NovaCompute)
	write(t, bed.ComputeConf(), string(before)+"[DEFAULT]\ninstances_path = $state_path/"+name+"\n")
	c.startAgain(t, openstack.NovaCompute)
}

// Nothing tells os-rescue where the instances are but what nova-compute itself reads, or has read.
func TestTheInstancesAreWhereNovaComputesFilesTogetherSay(t *testing.T) {
	c := newCloud(t)
	withInstancesIn(t, c, "guests")
	guests := c.boot(t, "demo", openstack.Spec{Name: "web"}, openstack.Spec{Name: "db"})
	for _, g := range guests {
		if filepath.Dir(g.Dir) == openstack.DefaultInstancesPath {
			t.Fatalf("%s is in %s", g.Name, g.Dir)
		}
	}
	c.deleteTree(t)
	said := []int{guests[0].beat(t), guests[1].beat(t)}
	c.stop(t, openstack.NovaCompute)
	for _, g := range guests { // by the files beside nova.conf
		if i := c.scan(t)[g.UUID]; i.Verdict != recover.VerdictRecoverable {
			t.Errorf("while nova-compute is down, %s is %s: %v", g.Name, i.Verdict, i.Reasons)
		}
	}
	c.startAgain(t, openstack.NovaCompute)
	ran := c.rescue(t, 0, "--project", "demo")
	for n, g := range guests {
		if got := of(t, ran, g); got.Outcome != recover.OutcomeRescued {
			t.Errorf("the report says %s", asJSON(t, ran))
		}
		g.isBack(t, 1, said[n])
		g.onPublishedFiles(t)
		c.inService(t, g)
	}
}
