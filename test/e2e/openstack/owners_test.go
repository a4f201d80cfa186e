//go:build openstack

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// owners returns owner, group and mode of each disk in the instance's directory, and of disk.info.
func (g *guest) owners(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir(g.Dir)
	must(t, err)
	var all []string
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "disk") {
			continue
		}
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(g.Dir, entry.Name()), &st))
		all = append(all, fmt.Sprintf("%s %d:%d %04o", entry.Name(), st.Uid, st.Gid, st.Mode&0o7777))
	}
	return strings.Join(all, ", ")
}

// Rescued disks are owned as those of an instance that never lost any, after they were stopped
// through Nova and after they were started again. The directories that somebody has made by hand
// as root are Nova's again, and a domain of another name than Nova's is the same instance.
func TestRescuedDisksAreOwnedAsAllOthersAfterAStop(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "rebooted"}, openstack.Spec{Name: "live"})
	rebooted, live := guests[0], guests[1]
	untouched := c.boot(t, "other", openstack.Spec{Name: "untouched"})[0]
	novas := rebooted.Domain
	virsh(t, "destroy", novas)
	virsh(t, "domrename", novas, "web-of-demo")
	virsh(t, "start", "web-of-demo") // sooner than Nova takes note of the end
	rebooted.Domain = "web-of-demo"
	rebooted.isBack(t, 1, 0)

	base := filepath.Join(bed.InstancesPath(), "_base")
	for _, g := range guests {
		must(t, os.RemoveAll(g.Dir))
		must(t, os.Mkdir(g.Dir, 0o700))
	}
	dirs := []string{bed.InstancesPath(), base, rebooted.Dir, live.Dir}
	for _, dir := range dirs[:2] {
		must(t, os.Chown(dir, 0, 0))
	}
	if r := c.run(t, 0, "scan"); !hasAll(r.Stdout, dirs) || !strings.Contains(r.Stdout, "should be nova:nova 0755") {
		t.Errorf("the scan does not name the directories:\n%s", r.Stdout)
	}
	if r := c.run(t, 0, "--project", "demo", "--dry-run"); !strings.Contains(r.Stdout, "give "+base+" its owner and mode") {
		t.Errorf("the plan does not name the directories:\n%s", r.Stdout)
	}
	said := rebooted.beat(t)
	ran := c.rescue(t, 0, "--instance", rebooted.UUID)
	if warned := strings.Join(ran.Warnings, " "); !hasAll(warned, []string{novas, "web-of-demo", "the same instance"}) {
		t.Errorf("the report warns of %q", warned)
	}
	rebooted.Domain = novas
	rebooted.isBack(t, 1, said)
	rebooted.onPublishedFiles(t)
	c.inService(t, rebooted)
	if got := of(t, c.rescue(t, 0, "--instance", live.UUID, "--mode", "live"), live); got.Outcome != recover.OutcomeRescued {
		t.Errorf("the report says %s", asJSON(t, got))
	}
	for _, dir := range dirs {
		ownedAs(t, dir, "nova", "nova", 0o755)
	}

	all := append(guests, untouched)
	same := func(when string) {
		t.Helper()
		for _, g := range guests {
			if got, want := g.owners(t), untouched.owners(t); got != want {
				t.Errorf("%s the disks of %s are %s, and those of one that lost none are %s", when, g.Name, got, want)
			}
		}
	}
	for _, g := range all {
		must(t, servers.Stop(t.Context(), g.owner.Compute, g.UUID).ExtractErr())
	}
	for _, g := range all {
		c.awaitStatus(t, g, "SHUTOFF")
	}
	same("after a stop")
	for _, g := range all {
		must(t, servers.Start(t.Context(), g.owner.Compute, g.UUID).ExtractErr())
	}
	for _, g := range all {
		g.isBack(t, 1, 0)
		g.onPublishedFiles(t)
	}
	same("after a start")
}
