//go:build openstack

package e2e

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// virsh runs virsh and returns what it says.
func virsh(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("virsh %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A backup tool's snapshot, and disks that somebody has moved with blockcopy: the guests write
// other files than Nova would define.
func TestAGuestOnOtherFilesThanNovaDefinesIsRescuedLiveOnly(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "snap"}, openstack.Spec{Name: "db", Flavor: openstack.FlavorFull})
	snap, db := guests[0], guests[1]
	overlay := snap.Disk + ".backup"
	moved := map[string]string{"vda": filepath.Join(db.Dir, "root.moved"), "vdb": filepath.Join(db.Dir, "eph0.moved")}
	virsh(t, "snapshot-create-as", snap.Domain, "backup", "--disk-only", "--no-metadata", "--atomic", "--diskspec", "vda,file="+overlay)
	for target, path := range moved {
		virsh(t, "blockcopy", db.Domain, target, path, "--shallow", "--transient-job", "--wait", "--pivot")
	}
	c.deleteTree(t)
	pids := map[*guest]int{snap: snap.QemuPID(), db: db.QemuPID()}
	found := c.scan(t)
	names := map[*guest][]string{
		snap: {overlay, snap.Disk + ", the file below it"},
		db:   {moved["vda"], moved["vdb"], db.Disk},
	}
	for g, names := range names {
		i := found[g.UUID]
		if why := i.StartsElsewhere(recover.StarterNova); i.Verdict != recover.VerdictConflict || !hasAll(why, names) {
			t.Errorf("of %s the scan says %s, %q", g.Name, i.Verdict, why)
		}
	}
	if plan := c.run(t, 0, "--project", "demo", "--mode", "reboot", "--dry-run").Stdout; !hasAll(plan, slices.Concat(names[snap], names[db])) {
		t.Errorf("the plan does not name %v:\n%s", names, plan)
	}

	refused := c.rescue(t, 1, "--project", "demo", "--mode", "reboot")
	for g, names := range names {
		if got := of(t, refused, g); got.Outcome != recover.OutcomeSkipped || !hasAll(got.Error, names) {
			t.Errorf("mode reboot says %s", asJSON(t, got))
		}
		g.unharmed(t)
	}
	live := c.rescue(t, 0, "--project", "demo", "--mode", "live")
	for g, pid := range pids {
		if got := of(t, live, g); got.Outcome != recover.OutcomeRescued || got.Mode != recover.ModeLive {
			t.Errorf("mode live says %s", asJSON(t, got))
		}
		g.unharmed(t)
		if g.QemuPID() != pid {
			t.Errorf("%s has another QEMU", g.Name)
		}
	}
	for _, got := range c.rescue(t, 1, "reboot", "--project", "demo").Instances {
		if got.Outcome != recover.OutcomeSkipped {
			t.Errorf("before the cure reboot says %s", asJSON(t, got))
		}
	}

	// The cure that the scan names for the snapshot, and the one for what was moved.
	found = c.scan(t)
	cure, _, ok := strings.Cut(found[snap.UUID].CureOfNextStart(), " merges ")
	if words := strings.Fields(cure); !ok || words[0] != "virsh" {
		t.Fatalf("the scan says %s", asJSON(t, found[snap.UUID].NextStart))
	}
	virsh(t, strings.Fields(cure)[1:]...)
	for target, path := range map[string]string{"vda": db.Disk, "vdb": db.Disk + ".eph0"} {
		virsh(t, "blockcopy", db.Domain, target, path, "--shallow", "--transient-job", "--wait", "--pivot")
	}
	found = c.scan(t)
	for _, g := range guests {
		if i := found[g.UUID]; i.Verdict != recover.VerdictIntact {
			t.Errorf("after the cure %s is %s: %v", g.Name, i.Verdict, i.Reasons)
		}
		g.unharmed(t)
	}
}

func hasAll(text string, words []string) bool {
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) })
}
