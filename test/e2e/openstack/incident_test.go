//go:build openstack

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// The incident: everything below instances_path is deleted under two projects'
// running guests and a third one's stopped instance.
func TestAProjectComesBackAndThenTheRestOfTheHost(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "web"},
		openstack.Spec{Name: "db", Flavor: openstack.FlavorFull, ConfigDrive: true}, openstack.Spec{Name: "cache"})
	web, db, cache := guests[0], guests[1], guests[2]
	shop := c.boot(t, "other", openstack.Spec{Name: "shop"})[0]
	stopped := c.boot(t, "third", openstack.Spec{Name: "asleep"})[0]
	if err := servers.Stop(t.Context(), stopped.owner.Compute, stopped.UUID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.AwaitStatus(t.Context(), stopped.UUID, "SHUTOFF"); err != nil {
		t.Fatal(err)
	}
	c.deleteTree(t)
	said := map[*guest]int{}
	for _, g := range []*guest{web, db, cache, shop} {
		g.onDeletedFiles(t)
		said[g] = g.beat(t)
	}

	// In the middle of the run, with everything locked, an owner tries to reboot.
	refused := false
	r := c.at(t, "copy.begin", func() {
		refused = gophercloud.ResponseCodeIs(web.hardReboot(t), http.StatusConflict)
		if reason := c.lockReason(t, web); !strings.HasPrefix(reason, "os-rescue ") {
			t.Errorf("during the run it is locked for the reason %q", reason)
		}
		if *c.server(t, shop).Locked {
			t.Error("the other project's instance is locked")
		}
	}, "--project", "demo", "--yes")
	if r.Code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	if !refused {
		t.Error("the owner's hard reboot during the run was not refused with 409")
	}
	for _, g := range []*guest{web, db, cache} {
		g.isBack(t, 1, said[g])
		g.onPublishedFiles(t)
		c.inService(t, g)
	}
	shop.onDeletedFiles(t)
	shop.unharmed(t)
	if state := c.server(t, shop).Status; state != "ACTIVE" {
		t.Errorf("the other project's instance is %s", state)
	}

	ran := c.rescue(t, 1, "--all")
	shop.isBack(t, 1, said[shop])
	shop.onPublishedFiles(t)
	c.inService(t, shop)
	for g, want := range map[*guest]recover.Outcome{
		web: recover.OutcomeIntact, db: recover.OutcomeIntact, cache: recover.OutcomeIntact,
		shop: recover.OutcomeRescued, stopped: recover.OutcomeSkipped,
	} {
		if got := of(t, ran, g); got.Outcome != want {
			t.Errorf("%s is %s, want %s: %s", g.Name, got.Outcome, want, got.Error)
		}
	}
	if said := of(t, ran, stopped).Error; !strings.Contains(said, "nobody holds it") || !strings.Contains(said, "backup") {
		t.Errorf("of the stopped one it says %q", said)
	}
	for _, g := range []*guest{web, db, cache} {
		g.unharmed(t)
	}
	for _, g := range []*guest{web, db, cache, shop} {
		c.snapshot(t, g)
	}
}

// What a person sees before agreeing, and that a dry run touches nothing.
func TestADryRunTouchesNothing(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	r := c.run(t, 0, "--project", "demo", "--dry-run")
	for _, want := range []string{"lock it in Nova", "hard reboot it through Nova", "unlock it"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("the plan does not say %q:\n%s", want, r.Stdout)
		}
	}
	if *c.server(t, g).Locked {
		t.Error("it is locked")
	}
	if _, err := os.Stat(c.stateDir); err == nil {
		t.Error("the state directory was made")
	}
	g.onDeletedFiles(t)
	g.unharmed(t)
}

// The owner hard rebooted before anybody acted: libvirt has forgotten the domain
// and the instance is in ERROR, but another process still has its files open.
func TestAnInstanceThatNovaLostComesBackFromAnotherHolder(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	open, err := g.OpenFiles()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-f", "-n", "0"}
	for path := range open {
		args = append(args, path)
	}
	slices.Sort(args[3:])
	holder := exec.Command("tail", args...)
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
	waitFor(t, "the holder", func() error {
		held, err := lab.OpenFiles(holder.Process.Pid)
		for path := range open {
			if err == nil && !slices.ContainsFunc(held, func(f lab.OpenFile) bool { return f.Path == path }) {
				err = fmt.Errorf("it has not opened %s", path)
			}
		}
		return err
	})
	c.deleteTree(t)
	said := g.beat(t)
	if err := g.hardReboot(t); err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.AwaitStatus(t.Context(), g.UUID, "ERROR"); err != nil {
		t.Fatal(err)
	}
	if state := g.state(t); state != "" {
		t.Fatalf("libvirt still knows the domain: %s", state)
	}

	without := c.rescue(t, 1, "--instance", g.UUID)
	if got := of(t, without, g); got.Outcome != recover.OutcomeSkipped || !strings.Contains(got.Error, "--holder") {
		t.Errorf("without a holder the report says %s", asJSON(t, without))
	}
	ran := c.rescue(t, 0, "--instance", g.UUID, "--holder", fmt.Sprint(holder.Process.Pid))
	if got := of(t, ran, g); got.Outcome != recover.OutcomeRescued {
		t.Errorf("the report says %s", asJSON(t, ran))
	}
	g.isBack(t, 1, said)
	g.onPublishedFiles(t)
	c.inService(t, g)
	c.snapshot(t, g)
}
