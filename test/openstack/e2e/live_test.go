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
	guests := c.boot(t, "demo", openstack.Spec{Name: "db", Flavor: openstack.FlavorFull, ConfigDrive: true}, openstack.Spec{Name: "web", Flavor: openstack.FlavorFull})
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
		if got.Outcome != recover.OutcomeRescued || got.Mode != recover.ModeLive || got.Verified != recover.VerifyRunning || got.PauseSeconds <= 0 {
			t.Errorf("the report says %s", asJSON(t, got))
		}
		t.Logf("%s was suspended for %.0f ms", g.Name, got.PauseSeconds*1000)
		g.unharmed(t)
		c.inService(t, g)
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
	ownedAs(t, filepath.Join(openstack.InstancesPath, "_base"), "nova", "nova", 0o755)
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
