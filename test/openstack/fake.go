package openstack

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// FakeHost is the name of the n-th fake compute host, counted from 1. Nova's fake
// driver (nova/virt/fake.py) has instances that are nothing but a record: what is
// the API's, the scheduler's, the conductor's and nova-compute's part is real.
func FakeHost(n int) string { return fmt.Sprintf("fake-%d", n) }

func fakeService(n int) string { return NovaCompute + "-" + FakeHost(n) }

func fakeConf(dir string, n int) string { return filepath.Join(dir, "etc", FakeHost(n)+".conf") }

// fakeCompute is what its configuration has beside nova.conf.
func fakeCompute(n int) []byte {
	return fmt.Appendf(nil, "[DEFAULT]\nhost = %s\ncompute_driver = fake.FakeDriver\n", FakeHost(n))
}

func newFakeCompute(dir string, n int) *service {
	return &service{name: fakeService(n), user: "nova",
		command: []string{"/usr/bin/nova-compute", "--config-file", filepath.Join(dir, "etc", "nova.conf"), "--config-file", fakeConf(dir, n)}}
}

// fakeNames are the names of the services of so many fake hosts.
func fakeNames(count int) []string {
	var names []string
	for n := range count {
		names = append(names, fakeService(n+1))
	}
	return names
}

// awaitFakes waits until instances can be scheduled to every fake host.
func awaitFakes(ctx context.Context, b *Bed) error {
	admin, err := b.Admin(ctx)
	if err != nil {
		return err
	}
	return until(ctx, askEvery, func(ctx context.Context) error {
		var list struct {
			Hypervisors []struct {
				State string
				Name  string `json:"hypervisor_hostname"`
			}
		}
		response, err := admin.Compute.Get(ctx, admin.Compute.ServiceURL("os-hypervisors"), &list, nil)
		if err != nil {
			return err
		}
		response.Body.Close()
		var up []string
		for _, h := range list.Hypervisors {
			if h.State == "up" {
				up = append(up, h.Name)
			}
		}
		for n := range b.lasting.FakeComputes {
			if !slices.Contains(up, FakeHost(n+1)) {
				return fmt.Errorf("openstack: %s is not up: see %s", FakeHost(n+1), b.Log(fakeService(n+1)))
			}
		}
		return nil
	})
}

// FakeInstances creates instances on a fake host with one request, and returns
// their UUIDs when all are ACTIVE. The client must be the administrator's.
func (c *Client) FakeInstances(ctx context.Context, host string, count int) ([]string, error) {
	image, err := c.image(ctx)
	if err != nil {
		return nil, err
	}
	_, err = servers.Create(ctx, c.Compute, servers.CreateOpts{Name: host, ImageRef: image, FlavorRef: FlavorTiny,
		Networks: "none", Min: count, Max: count, HypervisorHostname: host}, nil).Extract()
	if err != nil {
		return nil, fmt.Errorf("openstack: create %d instances on %s: %w", count, host, err)
	}
	most, deadline := 0, time.Now().Add(patience.Of(fakeLimit))
	for {
		uuids, err := active(ctx, c.bed, host)
		if err != nil || len(uuids) >= count {
			return uuids, err
		}
		if len(uuids) > most {
			most, deadline = len(uuids), time.Now().Add(patience.Of(fakeLimit))
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("openstack: %d of %d instances of %s are ACTIVE, and no more become it: see %s",
				most, count, host, c.bed.Log(NovaConductor))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}

// fakeLimit is how long to wait for the next of many instances: the first comes
// when all are scheduled, and other hosts' may come before it.
const fakeLimit = 15 * time.Minute

// active returns the UUIDs of a host's instances that are ACTIVE and have no task.
// The database is asked: a list of hundreds costs Nova more than to make one.
func active(ctx context.Context, b *Bed, host string) ([]string, error) {
	rows, err := b.SQL(ctx, "nova", fmt.Sprintf("select uuid from instances "+
		"where host='%s' and vm_state='active' and task_state is null and deleted=0", host))
	return strings.Fields(rows), err
}
