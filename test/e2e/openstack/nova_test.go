//go:build openstack

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/instanceactions"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/os-rescue/os-rescue/test/openstack"
)

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

func (c *cloud) hasStatus(t *testing.T, g *guest, status string) error {
	t.Helper()
	if server := c.server(t, g); server.Status != status || server.TaskState != "" {
		return fmt.Errorf("it is %s, task %q", server.Status, server.TaskState)
	}
	return nil
}

func (c *cloud) awaitStatus(t *testing.T, g *guest, status string) {
	t.Helper()
	if _, err := c.admin.AwaitStatus(t.Context(), g.UUID, status); err != nil {
		t.Fatal(err)
	}
}

// seenRunning checks that Nova does not take the short suspend for a pause. It
// looks some time after libvirt told it (nova/virt/libvirt/host.py).
func (c *cloud) seenRunning(t *testing.T, g *guest) {
	t.Helper()
	waitFor(t, "Nova to see that "+g.Name+" runs", func() error {
		if server := c.server(t, g); server.Status != "ACTIVE" || server.PowerState != servers.RUNNING {
			return fmt.Errorf("it is %s, power state %s", server.Status, server.PowerState)
		}
		return nil
	})
}

// reboots returns how often Nova was asked to reboot an instance.
func (c *cloud) reboots(t *testing.T, g *guest) int {
	t.Helper()
	pages, err := instanceactions.List(c.admin.Compute, g.UUID, nil).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	actions, err := instanceactions.ExtractInstanceActions(pages)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, a := range actions {
		if a.Action == "reboot" {
			n++
		}
	}
	return n
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

// delete has a client delete an instance, and waits until Nova has it no more and its domain is gone.
func (c *cloud) delete(t *testing.T, by *openstack.Client, g *guest) {
	t.Helper()
	must(t, servers.Delete(t.Context(), by.Compute, g.UUID).ExtractErr())
	waitFor(t, "the deletion of "+g.Name, func() error {
		if _, err := c.admin.Server(t.Context(), g.UUID); !gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
			return fmt.Errorf("Nova has it still (%w)", err)
		}
		if state := g.state(t); state != "" {
			return fmt.Errorf("its domain is %s", state)
		}
		return nil
	})
}
