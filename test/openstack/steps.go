package openstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// step is a part of bringing the bed up. It begins when all of after are done.
type step struct {
	name  string
	after []string
	run   func(ctx context.Context) error
}

// runSteps runs every step, as many at a time as their order permits, and
// returns the first error. report is told of each that is done.
func runSteps(ctx context.Context, steps []step, report func(name string)) error {
	done := map[string]chan struct{}{}
	for _, s := range steps {
		done[s.name] = make(chan struct{})
	}
	for _, s := range steps {
		for _, name := range s.after {
			if done[name] == nil {
				return fmt.Errorf("openstack: %s comes after %s, which is no step", s.name, name)
			}
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range steps {
		group.Go(func() error {
			for _, name := range s.after {
				select {
				case <-done[name]:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if err := s.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			report(s.name)
			close(done[s.name])
			return nil
		})
	}
	return group.Wait()
}

// once wraps what has to be done once in a bed's life. That it was done is
// recorded below the bed's directory.
func (b *Bed) once(name string, f func(ctx context.Context) error) func(ctx context.Context) error {
	mark := filepath.Join(b.dir, "done", name)
	return func(ctx context.Context) error {
		if _, err := os.Stat(mark); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := f(ctx); err != nil {
			return err
		}
		return os.WriteFile(mark, nil, 0o644)
	}
}

// steps is the order of things.
func (b *Bed) steps() []step {
	start := func(name string) func(context.Context) error {
		return func(ctx context.Context) error { return b.service(name).start(ctx) }
	}
	// A schema begins with empty databases: a migration that was interrupted is
	// not one that can be gone on with.
	schema := func(owner string, databases []string, commands ...string) func(context.Context) error {
		return b.once(owner+"-schema", func(ctx context.Context) error {
			if err := b.makeDatabases(ctx, databases...); err != nil {
				return err
			}
			for _, line := range commands {
				if _, err := do(ctx, owner, nil, strings.Fields(line)...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	etc := filepath.Join(b.dir, "etc") + "/"
	novaManage := "/usr/bin/nova-manage --config-file " + etc + "nova.conf --config-file " + etc + "nova-database.conf "
	values := settings{b.dir}
	admin := url(keystonePort, "/v3/")

	steps := []step{
		{MariaDB, nil, b.startDatabase},
		{Epmd, nil, start(Epmd)},
		{RabbitMQ, []string{Epmd}, start(RabbitMQ)},
		{Virtlogd, nil, start(Virtlogd)},
		{Libvirtd, []string{Virtlogd}, start(Libvirtd)},
		{"capabilities", []string{Libvirtd}, func(ctx context.Context) error {
			// libvirtd probes QEMU at the first call.
			_, err := virsh(ctx, "capabilities")
			return err
		}},
		{"guest", nil, b.buildGuest},

		{"nova-schema", []string{MariaDB}, schema("nova", []string{"nova", "nova_api", "nova_cell0"},
			novaManage+"api_db sync",
			novaManage+"cell_v2 map_cell0 --database_connection "+values.Database("nova_cell0"),
			novaManage+"cell_v2 create_cell --name cell1",
			novaManage+"db sync")},
		{"keystone-schema", []string{MariaDB}, schema("keystone", []string{"keystone"},
			"/usr/bin/keystone-manage --config-file "+etc+"keystone.conf db_sync",
			"/usr/bin/keystone-manage --config-file "+etc+"keystone.conf bootstrap --bootstrap-password "+adminUser+
				" --bootstrap-region-id "+region+" --bootstrap-public-url "+admin+
				" --bootstrap-internal-url "+admin+" --bootstrap-admin-url "+admin)},
		{"neutron-schema", []string{MariaDB}, schema("neutron", []string{"neutron"},
			"/usr/bin/neutron-db-manage --config-file "+etc+"neutron.conf upgrade head")},
		{"glance-schema", []string{MariaDB}, schema("glance", []string{"glance"},
			"/usr/bin/glance-manage --config-file "+etc+"glance-api.conf db_sync")},
		{"placement-schema", []string{MariaDB}, schema("placement", []string{"placement"},
			"/usr/bin/placement-manage --config-file "+etc+"placement.conf db sync")},

		{Keystone, []string{"keystone-schema"}, start(Keystone)},
		{"catalog", []string{Keystone}, b.once("catalog", b.makeCatalog)},
		{Placement, []string{"placement-schema"}, start(Placement)},
		{Glance, []string{"glance-schema"}, start(Glance)},
		{"image", []string{Glance, "catalog", "guest"}, b.uploadGuest},
		{Neutron, []string{"neutron-schema", RabbitMQ}, start(Neutron)},
		{"ports", []string{Neutron, "catalog"}, b.awaitPorts},

		{NovaConductor, []string{"nova-schema", RabbitMQ}, start(NovaConductor)},
		{NovaScheduler, []string{"nova-schema", RabbitMQ}, start(NovaScheduler)},
		{NovaAPI, []string{"nova-schema", RabbitMQ}, start(NovaAPI)},
		{NovaCompute, []string{NovaConductor, "capabilities", Placement, "catalog"}, start(NovaCompute)},
		{"flavors", []string{NovaAPI, "catalog"}, b.once("flavors", b.makeFlavors)},
		{"hypervisor", []string{NovaCompute, NovaScheduler, "flavors", "ports"}, b.awaitHypervisor},
	}
	for _, name := range b.fakeNames() {
		steps = append(steps, step{name, []string{NovaConductor, Placement, "catalog"}, start(name)})
	}
	if b.lasting.FakeComputes > 0 {
		steps = append(steps, step{"fake hypervisors", append(b.fakeNames(), "hypervisor"), b.awaitFakes})
	}
	return steps
}
