//go:build openstack

package e2e

import (
	"net/http"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// chains are the paths of a domain's disks and their backing files, as libvirt has
// them live, and the paths that a next start will use.
func (g *guest) chains(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, flag := range []string{"--security-info", "--inactive"} {
		out, err := exec.CommandContext(t.Context(), "virsh", "dumpxml", flag, g.Domain).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`<(?:source|mirror) file='([^']*)'`).FindAllStringSubmatch(string(out), -1) {
			all = append(all, m[1])
		}
	}
	return all
}

// ownedAs checks the owner and mode of a file.
func ownedAs(t *testing.T, path, owner, group string, mode uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	u, err := user.LookupId(strconv.Itoa(int(st.Uid)))
	if err != nil {
		t.Fatal(err)
	}
	gr, err := user.LookupGroupId(strconv.Itoa(int(st.Gid)))
	if err != nil {
		t.Fatal(err)
	}
	if u.Username != owner || gr.Name != group || st.Mode&0o7777 != mode {
		t.Errorf("%s is %s:%s %04o, want %s:%s %04o", path, u.Username, gr.Name, st.Mode&0o7777, owner, group, mode)
	}
}

// The incident with nobody rebooted.
func TestAProjectIsRescuedLive(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "db", Flavor: openstack.FlavorFull, ConfigDrive: true},
		openstack.Spec{Name: "web", Flavor: openstack.FlavorFull})
	pids, before := map[*guest]int{}, map[*guest][]string{}
	for _, g := range guests {
		if g.disks != 2 {
			t.Fatalf("%s has %d further disks, want two", g.Name, g.disks)
		}
		pids[g], before[g] = g.QemuPID(), g.chains(t)
	}
	c.deleteTree(t)
	refused := false
	r := c.at(t, "ready.begin", func() {
		refused = gophercloud.ResponseCodeIs(guests[0].hardReboot(t), http.StatusConflict)
	}, "--project", "demo", "--mode", "live", "--yes", "--output", "json")
	if r.Code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	if !refused {
		t.Error("the owner's hard reboot during the run was not refused with 409")
	}
	var ran recover.RunReport
	decode(t, r.Stdout, &ran)
	for _, g := range guests {
		got := of(t, ran, g)
		if got.Outcome != recover.OutcomeRescued || got.Mode != recover.ModeLive ||
			got.Verified != recover.VerifyRunning || got.PauseSeconds <= 0 {
			t.Errorf("the report says %s", asJSON(t, got))
		}
		t.Logf("%s was suspended for %.0f ms", g.Name, got.PauseSeconds*1000)
		g.unharmed(t)
		c.inService(t, g)
		c.seenRunning(t, g)
		if g.QemuPID() != pids[g] {
			t.Errorf("%s has another QEMU", g.Name)
		}
		if now := g.chains(t); strings.Join(now, " ") != strings.Join(before[g], " ") {
			t.Errorf("its definitions name %v, and named %v", now, before[g])
		}
		dir := filepath.Dir(g.Disk)
		ownedAs(t, dir, "nova", "nova", 0o755)
		for _, disk := range []string{"disk", "disk.eph0", "disk.swap"} {
			ownedAs(t, filepath.Join(dir, disk), "libvirt-qemu", "kvm", 0o644)
		}
		ownedAs(t, filepath.Join(dir, "disk.info"), "nova", "nova", 0o644)
		ownedAs(t, filepath.Join(dir, "console.log"), "nova", "nova", 0o660)
	}
	ownedAs(t, filepath.Join(bed.InstancesPath(), "_base"), "nova", "nova", 0o755)
	ownedAs(t, filepath.Join(filepath.Dir(guests[0].Disk), "disk.config"), "libvirt-qemu", "kvm", 0o644)

	// What was impossible since the deletion works at once.
	c.snapshot(t, guests[0])
	for _, g := range guests {
		g.unharmed(t)
		said := g.beat(t)
		if err := g.hardReboot(t); err != nil {
			t.Fatal(err)
		}
		g.isBack(t, 1, said)
		g.onPublishedFiles(t)
		c.inService(t, g)
	}
}

// A resize that waits for its confirmation: no hard reboot is possible, a live
// rescue is, and the confirmation after it.
func TestAnInstanceWhoseResizeIsNotConfirmedIsRescuedLive(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	said := g.beat(t)
	larger := servers.ResizeOpts{FlavorRef: openstack.FlavorLarge}
	if err := servers.Resize(t.Context(), g.owner.Compute, g.UUID, larger).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.AwaitStatus(t.Context(), g.UUID, "VERIFY_RESIZE"); err != nil {
		t.Fatal(err)
	}
	g.isBack(t, 1, said)
	c.deleteTree(t)
	pid := g.QemuPID()
	got := of(t, c.rescue(t, 0, "--instance", g.UUID, "--mode", "auto"), g)
	if got.Outcome != recover.OutcomeRescued || got.Mode != recover.ModeLive {
		t.Errorf("the report says %s", asJSON(t, got))
	}
	if err := c.hasStatus(t, g, "VERIFY_RESIZE"); err != nil {
		t.Error(err)
	}
	if err := servers.ConfirmResize(t.Context(), g.owner.Compute, g.UUID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the confirmation", func() error { return c.hasStatus(t, g, "ACTIVE") })
	g.unharmed(t)
	if g.QemuPID() != pid {
		t.Error("it has another QEMU")
	}
	said = g.beat(t)
	if err := g.hardReboot(t); err != nil {
		t.Fatal(err)
	}
	g.isBack(t, 1, said)
	g.onPublishedFiles(t)
	c.inService(t, g)
}

// Where a live rescue would lose something, mode live refuses and says what works,
// and mode auto does that.
func TestModeAutoRebootsWhatCantBeRescuedLive(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "kept"}, openstack.Spec{Name: "web"})
	kept, web := guests[0], guests[1]
	if err := servers.Stop(t.Context(), kept.owner.Compute, kept.UUID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.AwaitStatus(t.Context(), kept.UUID, "SHUTOFF"); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "snapshot", "-c", "kept", kept.Disk)
	if err := servers.Start(t.Context(), kept.owner.Compute, kept.UUID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	kept.isBack(t, 1, 0)
	waitFor(t, "the start to end", func() error { return c.hasStatus(t, kept, "ACTIVE") })
	c.deleteTree(t)
	said, pids := kept.beat(t), [2]int{kept.QemuPID(), web.QemuPID()}

	refused := c.rescue(t, 1, "--instance", kept.UUID, "--mode", "live")
	if got := of(t, refused, kept); got.Outcome != recover.OutcomeSkipped ||
		!strings.Contains(got.Error, "internal snapshots (1)") || !strings.Contains(got.Error, "--mode reboot") {
		t.Errorf("mode live says %s", asJSON(t, got))
	}
	if *c.server(t, kept).Locked || kept.QemuPID() != pids[0] {
		t.Error("it was not left alone")
	}

	ran := c.rescue(t, 0, "--project", "demo", "--mode", "auto")
	if got := of(t, ran, kept); got.Outcome != recover.OutcomeRescued || got.Mode != recover.ModeReboot ||
		!strings.Contains(strings.Join(got.Notes, " "), "internal snapshots") {
		t.Errorf("of the one with a snapshot mode auto says %s", asJSON(t, got))
	}
	kept.isBack(t, 1, said)
	kept.onPublishedFiles(t)
	c.inService(t, kept)
	if list := qemuImg(t, "snapshot", "-U", "-l", kept.Disk); !strings.Contains(list, "kept") {
		t.Errorf("its snapshot is lost:\n%s", list)
	}
	if got := of(t, ran, web); got.Outcome != recover.OutcomeRescued || got.Mode != recover.ModeLive || web.QemuPID() != pids[1] {
		t.Errorf("of the other one mode auto says %s", asJSON(t, got))
	}
	web.unharmed(t)
	c.inService(t, web)
}

// qemuImg runs qemu-img and returns what it says.
func qemuImg(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
