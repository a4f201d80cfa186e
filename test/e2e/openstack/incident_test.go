//go:build openstack

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

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

// server returns an instance as Nova has it, with its lock.
func (c *cloud) server(t *testing.T, g *guest) *servers.Server {
	t.Helper()
	server, err := c.admin.Server(t.Context(), g.UUID)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// lockReason returns why an instance is locked; empty when it is not.
func (c *cloud) lockReason(t *testing.T, g *guest) string {
	t.Helper()
	var server struct {
		Locked bool   `json:"locked"`
		Reason string `json:"locked_reason"`
	}
	if err := servers.Get(t.Context(), c.admin.Compute, g.UUID).ExtractInto(&server); err != nil {
		t.Fatal(err)
	}
	if server.Locked && server.Reason == "" {
		return "none given"
	}
	return server.Reason
}

// inService checks that Nova has an instance as its owner should find it.
func (c *cloud) inService(t *testing.T, g *guest) {
	t.Helper()
	server := c.server(t, g)
	if server.Status != "ACTIVE" || server.TaskState != "" || *server.Locked {
		t.Errorf("Nova has %s as %s, task %q, locked %v", g.Name, server.Status, server.TaskState, *server.Locked)
	}
}

// snapshot makes an image of an instance, which fails while its files are deleted.
func (c *cloud) snapshot(t *testing.T, g *guest) {
	t.Helper()
	image := servers.CreateImageOpts{Name: "snapshot of " + g.Name}
	id, err := servers.CreateImage(t.Context(), g.owner.Compute, g.UUID, image).ExtractImageID()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = images.Delete(context.Background(), g.owner.Image, id).ExtractErr() })
	waitFor(t, "the image of "+g.Name, func() error {
		image, err := images.Get(t.Context(), g.owner.Image, id).Extract()
		if err == nil && (image.Status != images.ImageStatusActive || image.SizeBytes == 0) {
			err = fmt.Errorf("it is %s", image.Status)
		}
		return err
	})
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
