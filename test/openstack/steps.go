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

// once wraps what has to be done once in the life of the bed in dir. That it was done
// is recorded there.
func once(dir, name string, f func(ctx context.Context) error) func(ctx context.Context) error {
	mark := filepath.Join(dir, "done", name)
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

// stepsOf is the order of things.
func stepsOf(b *Bed) []step {
	start := func(name string) func(context.Context) error {
		return func(ctx context.Context) error { return b.service(name).start(ctx) }
	}
	with := func(f func(context.Context, *Bed) error) func(context.Context) error {
		return func(ctx context.Context) error { return f(ctx, b) }
	}
	// A schema begins with empty databases: a migration that was interrupted is
	// not one that can be gone on with.
	schema := func(owner string, databases []string, commands ...string) func(context.Context) error {
		return once(b.dir, owner+"-schema", func(ctx context.Context) error {
			if err := makeDatabases(ctx, b, databases...); err != nil {
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
		{MariaDB, nil, with(startDatabase)},
		{Epmd, nil, start(Epmd)},
		{RabbitMQ, []string{Epmd}, start(RabbitMQ)},
		{Virtlogd, nil, start(Virtlogd)},
		{Libvirtd, []string{Virtlogd}, start(Libvirtd)},
		{"capabilities", []string{Libvirtd}, func(ctx context.Context) error {
			// libvirtd probes QEMU at the first call.
			_, err := virsh(ctx, "capabilities")
			return err
		}},
		{"guest", nil, with(buildGuest)},

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
		{"catalog", []string{Keystone}, once(b.dir, "catalog", makeCatalog)},
		{Placement, []string{"placement-schema"}, start(Placement)},
		{Glance, []string{"glance-schema"}, start(Glance)},
		{"image", []string{Glance, "catalog", "guest"}, with(uploadGuest)},
		{Neutron, []string{"neutron-schema", RabbitMQ}, start(Neutron)},
		{"ports", []string{Neutron, "catalog"}, awaitPorts},

		{NovaConductor, []string{"nova-schema", RabbitMQ}, start(NovaConductor)},
		{NovaScheduler, []string{"nova-schema", RabbitMQ}, start(NovaScheduler)},
		{NovaAPI, []string{"nova-schema", RabbitMQ}, start(NovaAPI)},
		{NovaCompute, []string{NovaConductor, "capabilities", Placement, "catalog"}, start(NovaCompute)},
		{"flavors", []string{NovaAPI, "catalog"}, once(b.dir, "flavors", with(makeFlavors))},
		{"hypervisor", []string{NovaCompute, NovaScheduler, "flavors", "ports"}, with(awaitHypervisor)},
	}
	fakes := fakeNames(b.lasting.FakeComputes)
	for _, name := range fakes {
		steps = append(steps, step{name, []string{NovaConductor, Placement, "catalog"}, start(name)})
	}
	if len(fakes) > 0 {
		steps = append(steps, step{"fake hypervisors", append(fakes, "hypervisor"), with(awaitFakes)})
	}
	return steps
}
