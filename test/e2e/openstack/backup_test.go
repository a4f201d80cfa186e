//go:build openstack

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// The host loses its power in the incident, and what nobody holds any more comes back from the
// backup, one instance after the other, as Nova's own.
func TestABackupIsRestoredInstanceByInstance(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "first"}, openstack.Spec{Name: "second"})
	first, second := guests[0], guests[1]
	c.deleteTree(t)
	said := []int{first.beat(t), second.beat(t)}
	from := filepath.Join(t.TempDir(), "backup")
	c.rescue(t, 0, "backup", "--project", "demo", "--to", from)
	c.run(t, 0, "backup", "verify", from)
	for _, g := range guests {
		virsh(t, "destroy", g.Domain)
	}
	for _, g := range guests {
		c.awaitStatus(t, g, "SHUTOFF")
	}

	ran := c.rescue(t, 1, "restore", "--instance", first.UUID, "--from", from)
	if got := of(t, ran, first); got.Outcome != recover.OutcomeSkipped || !strings.Contains(got.Error, "--accept-older") {
		t.Errorf("without consent to an older state the report says %s", asJSON(t, ran))
	}
	for n, g := range guests {
		ran := c.rescue(t, 0, "restore", "--instance", g.UUID, "--from", from, "--accept-older")
		if got := of(t, ran, g); got.Outcome != recover.OutcomeRescued {
			t.Fatalf("the report says %s", asJSON(t, ran))
		}
		g.isBack(t, 1, said[n])
		g.onPublishedFiles(t)
		c.inService(t, g)
		if run := c.newestRun(t); run.State != recover.RunFinished {
			t.Errorf("the run is %s", run.State)
		}
	}
	c.snapshot(t, second)
	for uuid, i := range c.scan(t) {
		if i.Verdict != recover.VerdictIntact {
			t.Errorf("%s is %s: %v", uuid, i.Verdict, i.Reasons)
		}
	}
}
