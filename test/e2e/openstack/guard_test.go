//go:build openstack

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// guard starts a guard that signs in with the few rights it needs, and waits for
// its first scan.
func (c *cloud) guard(t *testing.T, env ...string) *lab.Process {
	t.Helper()
	if err := bed.LeastPrivilege(true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.LeastPrivilege(false); err != nil {
			t.Error(err)
		}
	})
	clouds := filepath.Join(filepath.Dir(c.config), "clouds.yaml")
	write(t, clouds, cloudsYAML("guard", openstack.Guard)+cloudsYAML("admin", openstack.Rescuer))
	own := []string{"OS_CLIENT_CONFIG_FILE=" + clouds, "OS_RESCUE_GUARD_OS_CLOUD=guard", "OS_RESCUE_GUARD_INTERVAL=2s"}
	return c.guardOf(t, append(own, env...)...)
}

// guardOf starts a guard in that environment, and waits for its first scan.
func (c *cloud) guardOf(t *testing.T, env ...string) *lab.Process {
	t.Helper()
	p := lab.StartProcess(t, "/", env, binary, "guard", "--log-format", "json", "--config", c.config)
	t.Cleanup(func() {
		p.Signal(t, syscall.SIGKILL)
		<-p.Done()
		if _, said := p.Output(); t.Failed() {
			t.Logf("the guard has said:\n%s", said)
		}
	})
	c.awaitGuard(t, "its first scan", func(s guard.Status) bool { return !s.Scanned.IsZero() })
	return p
}

func cloudsYAML(name, user string) string {
	head := ""
	if name == "guard" {
		head = "clouds:\n"
	}
	vars := map[string]string{}
	for _, v := range bed.Env(user, openstack.RescueProject) {
		key, value, _ := strings.Cut(v, "=")
		vars[key] = value
	}
	return head + fmt.Sprintf(`  %s:
    auth: {auth_url: %q, username: %q, password: %q, project_name: %q, user_domain_name: Default, project_domain_name: Default}
    region_name: %q
`, name, vars["OS_AUTH_URL"], vars["OS_USERNAME"], vars["OS_PASSWORD"], vars["OS_PROJECT_NAME"], vars["OS_REGION_NAME"])
}

// guarded returns what the guard says of itself.
func (c *cloud) guarded(t *testing.T) guard.Status {
	t.Helper()
	var overview struct {
		Guard guard.Status `json:"guard"`
	}
	decode(t, c.run(t, 0, "status", "--output", "json").Stdout, &overview)
	return overview.Guard
}

func (c *cloud) awaitGuard(t *testing.T, what string, ok func(guard.Status) bool) (s guard.Status) {
	t.Helper()
	waitFor(t, what, func() error {
		if s = c.guarded(t); !ok(s) {
			return fmt.Errorf("the guard says %+v", s)
		}
		return nil
	})
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// In the middle of the incident one owner hard reboots, one stops; a third had
// suspended before. Nova, libvirt and QEMU have lost what they can lose.
func TestWhatOwnersEndInTheIncidentComesBackFromTheGuard(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "web", Flavor: openstack.FlavorFull, ConfigDrive: true},
		openstack.Spec{Name: "db"}, openstack.Spec{Name: "asleep"}, openstack.Spec{Name: "off"})
	web, db, asleep, off := guests[0], guests[1], guests[2], guests[3]
	must(t, asleep.AwaitBeat(t.Context(), asleep.beat(t)+1))
	must(t, servers.Suspend(t.Context(), asleep.owner.Compute, asleep.UUID).ExtractErr())
	c.awaitStatus(t, asleep, "SUSPENDED")
	slept := asleep.beat(t)
	must(t, servers.Stop(t.Context(), off.owner.Compute, off.UUID).ExtractErr())
	c.awaitStatus(t, off, "SHUTOFF")
	c.guard(t)
	c.deleteTree(t)
	c.awaitGuard(t, "the incidents", func(s guard.Status) bool { return len(s.Incidents) == 4 })
	said := map[*guest]int{web: web.beat(t), db: db.beat(t)}

	must(t, web.hardReboot(t))
	c.awaitStatus(t, web, "ERROR")
	if state := web.state(t); state != "" {
		t.Fatalf("libvirt still knows the domain: %s", state)
	}
	must(t, servers.Stop(t.Context(), db.owner.Compute, db.UUID).ExtractErr())
	c.awaitStatus(t, db, "SHUTOFF")

	ran := c.rescue(t, 0, "--project", "demo")
	for _, g := range guests {
		if got := of(t, ran, g); got.Outcome != recover.OutcomeRescued {
			t.Errorf("the report says %s", asJSON(t, got))
		}
	}
	for _, g := range []*guest{web, db} {
		g.isBack(t, 1, said[g])
		g.onPublishedFiles(t)
		c.inService(t, g)
	}
	c.snapshot(t, web)
	waitFor(t, "the stopped one", func() error { return c.hasStatus(t, off, "SHUTOFF") })
	must(t, servers.Start(t.Context(), off.owner.Compute, off.UUID).ExtractErr())
	off.isBack(t, 1, 0)

	// Its memory is kept: it goes on where it was, without a boot.
	waitFor(t, "the suspended one", func() error { return c.hasStatus(t, asleep, "SUSPENDED") })
	must(t, servers.Resume(t.Context(), asleep.owner.Compute, asleep.UUID).ExtractErr())
	c.awaitStatus(t, asleep, "ACTIVE")
	waitFor(t, "its next beats", func() error {
		console, err := os.ReadFile(asleep.ConsoleLog)
		lines := strings.ReplaceAll(string(console), "\r\n", "\n")
		if err == nil && !strings.Contains(lines, fmt.Sprintf("beat=%d\n", slept+3)) {
			err = fmt.Errorf("its console says %q, and it had said beat %d", console, slept)
		}
		if strings.Contains(string(console), "boot=") {
			t.Fatal("it has booted")
		}
		return err
	})
	asleep.onPublishedFiles(t)
	c.awaitGuard(t, "the end of the incidents", func(s guard.Status) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
}

// With guard.lock an owner's hard reboot is refused from the first second on.
func TestTheGuardLocksWhatHasLostFiles(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	other := c.boot(t, "other", openstack.Spec{Name: "shop"})[0]
	c.guard(t, "OS_RESCUE_GUARD_LOCK=true")
	must(t, os.RemoveAll(g.Dir))
	c.awaitGuard(t, "its lock", func(s guard.Status) bool { return len(s.Incidents) == 1 && s.Incidents[0].Locked })
	if err := g.hardReboot(t); !gophercloud.ResponseCodeIs(err, http.StatusConflict) {
		t.Errorf("the owner's hard reboot: %v, want 409", err)
	}
	if reason := c.lockReason(t, g); !strings.HasPrefix(reason, "os-rescue guard") {
		t.Errorf("it is locked for the reason %q", reason)
	}
	if *c.server(t, other).Locked {
		t.Error("an instance that lost nothing is locked")
	}
	g.unharmed(t)
	said := g.beat(t)
	c.rescue(t, 0, "--project", "demo")
	g.isBack(t, 1, said)
	waitFor(t, "the guard's unlock", func() error {
		if *c.server(t, g).Locked {
			return fmt.Errorf("it is locked")
		}
		return nil
	})
	c.inService(t, g)
}

// What Nova deletes in the ordinary way is let go, and is no incident.
func TestWhatNovaDeletesInOrderIsLetGo(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "deleted"}, openstack.Spec{Name: "resized"}, openstack.Spec{Name: "shelved"},
		openstack.Spec{Name: "moved"}, openstack.Spec{Name: "rescued"})
	deleted, resized, shelved, moved, rescued := guests[0], guests[1], guests[2], guests[3], guests[4]
	p := c.guard(t)
	letGo := func(what string) guard.Status {
		t.Helper()
		s := c.awaitGuard(t, what+": it is let go", func(s guard.Status) bool { return s.Held.DeletedFiles == 0 })
		if s.IncidentsSeen != 0 {
			t.Errorf("%s: taken for an incident", what)
		}
		return s
	}
	must(t, servers.Delete(t.Context(), deleted.owner.Compute, deleted.UUID).ExtractErr())
	waitFor(t, "the deletion", func() error {
		if _, err := os.Lstat(deleted.Dir); err == nil {
			return fmt.Errorf("%s is still there", deleted.Dir)
		}
		return nil
	})
	s := c.awaitGuard(t, "a deleted instance's files are let go", func(s guard.Status) bool {
		return s.Released[keeper.ReleasedDeleted] > 0
	})
	if s.Held.DeletedFiles != 0 {
		letGo("a deleted instance")
	}

	larger := servers.ResizeOpts{FlavorRef: openstack.FlavorLarge}
	must(t, servers.Resize(t.Context(), resized.owner.Compute, resized.UUID, larger).ExtractErr())
	c.awaitStatus(t, resized, "VERIFY_RESIZE")
	letGo("a resize")
	must(t, servers.ConfirmResize(t.Context(), resized.owner.Compute, resized.UUID).ExtractErr())
	c.awaitStatus(t, resized, "ACTIVE")
	waitFor(t, "the old files", func() error {
		if _, err := os.Lstat(resized.Dir + "_resize"); err == nil {
			return fmt.Errorf("they are still there")
		}
		return nil
	})
	letGo("a confirmed resize")

	must(t, servers.Rescue(t.Context(), rescued.owner.Compute, rescued.UUID, servers.RescueOpts{}).Err)
	c.awaitStatus(t, rescued, "RESCUE")
	must(t, servers.Unrescue(t.Context(), rescued.owner.Compute, rescued.UUID).ExtractErr())
	c.awaitStatus(t, rescued, "ACTIVE")
	letGo("a rescue mode that ended")

	must(t, servers.Shelve(t.Context(), shelved.owner.Compute, shelved.UUID).ExtractErr())
	c.awaitStatus(t, shelved, "SHELVED_OFFLOADED")
	letGo("a shelved instance")

	// What a cold migration leaves here, when it is confirmed on the other host.
	must(t, servers.Stop(t.Context(), moved.owner.Compute, moved.UUID).ExtractErr())
	c.awaitStatus(t, moved, "SHUTOFF")
	host := strings.TrimSpace(mustSQL(t, "nova", "select host from instances where uuid='%s'", moved.UUID))
	c.sql(t, "update instances set host='compute-2' where uuid='%s'", moved.UUID)
	defer c.sql(t, "update instances set host='%s' where uuid='%s'", host, moved.UUID)
	if out, err := exec.Command("virsh", "-q", "-c", "qemu:///system", "undefine", moved.Domain).CombinedOutput(); err != nil {
		t.Fatalf("virsh undefine: %v: %s", err, out)
	}
	must(t, os.RemoveAll(moved.Dir))
	s = c.awaitGuard(t, "a moved instance's files are let go", func(s guard.Status) bool {
		return s.Released[keeper.ReleasedMoved] > 0 && s.Held.DeletedFiles == 0
	})
	if s.IncidentsSeen != 0 {
		t.Errorf("a move was taken for an incident")
	}
	if _, said := p.Output(); strings.Contains(said, `"level":"error"`) {
		t.Errorf("the guard has said:\n%s", said)
	}
}

// A cloud admin's credentials are not for every host: the guard goes on without.
func TestTheGuardDoesNotUseACloudAdminsCredentials(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.guard(t, "OS_RESCUE_GUARD_OS_CLOUD=admin", "OS_RESCUE_GUARD_LOCK=true")
	must(t, os.RemoveAll(g.Dir))
	s := c.awaitGuard(t, "its refusal", func(s guard.Status) bool {
		return len(s.Incidents) == 1 && strings.Contains(strings.Join(s.Problems, "\n"), "role admin")
	})
	if s.Incidents[0].Locked || *c.server(t, g).Locked {
		t.Error("it was locked with an admin's credentials")
	}
	g.unharmed(t)
	said := g.beat(t)
	c.rescue(t, 0, "--project", "demo")
	g.isBack(t, 1, said)
}

// Without credentials for Nova the guard knows an orderly deletion by how it looks.
func TestAGuardWithoutCredentialsLetsAnOrderlyDeletionGoWithinSeconds(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "gone", Flavor: openstack.FlavorFull, ConfigDrive: true}, openstack.Spec{Name: "kept"})
	gone, kept := guests[0], guests[1]
	c.guardOf(t, "OS_CLIENT_CONFIG_FILE=/nonexistent")
	c.delete(t, gone.owner, gone)
	began := time.Now()
	s := c.awaitGuard(t, "its files are let go", func(s guard.Status) bool {
		return s.Released[keeper.ReleasedDeleted] > 0 && s.Held.DeletedFiles == 0
	})
	if took := time.Since(began); took > patience.Of(10*time.Second) {
		t.Errorf("that took %s", took)
	}
	if s.IncidentsSeen != 0 || s.Held.Files == 0 {
		t.Errorf("the guard says %s", asJSON(t, s))
	}
	kept.unharmed(t)
}
