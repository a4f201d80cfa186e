package openstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/test/ground"
)

// What a bed has inside, and what can be done to it there.

// NovaConf is the path of the bed's nova.conf, which is /etc/nova/nova.conf inside.
func (b *Bed) NovaConf() string { return novaConf(b.dir) }

// ComputeConf is the path of what nova-compute reads after nova.conf, which is
// /etc/nova/nova-compute.conf inside. What is written there holds after its next start.
func (b *Bed) ComputeConf() string { return computeConf(b.dir) }

// InstancesPath is Nova's instances_path inside.
func (b *Bed) InstancesPath() string {
	own, _ := os.ReadFile(b.ComputeConf()) // a bed that was never up has none
	path := strings.ReplaceAll(defaultSetting(string(own), "instances_path"), "$state_path", stateDir)
	return cmp.Or(path, defaultSetting(b.lasting.NovaConf, "instances_path"), DefaultInstancesPath)
}

// Host is what Nova calls the host of the real nova-compute.
func (b *Bed) Host() string { return cmp.Or(defaultSetting(b.lasting.NovaConf, "host"), hostName) }

// PID is the pid of a service, inside; ErrDown when it is not up.
func (b *Bed) PID(name string) (int, error) {
	p, alive, err := b.service(name).process()
	if err == nil && !alive {
		err = fmt.Errorf("openstack: %s: %w", name, ErrDown)
	}
	return p.PID, err
}

// SQL runs statements in one of the databases (nova, nova_api, keystone, ...) as
// the database's administrator, and returns the rows: a line each, its columns
// separated by tabs, no header.
func (b *Bed) SQL(ctx context.Context, database, statements string) (string, error) {
	args := []string{
		"/usr/bin/mariadb", "--no-defaults", "--socket", databaseSocket(b.dir), "--batch", "--skip-column-names", "--execute", statements,
	}
	if database != "" {
		args = append(args, database)
	}
	return do(ctx, "", nil, args...)
}

// LeastPrivilege puts the policies in force that let LeastRescuer run os-rescue,
// or takes them away again. The services notice at the next request.
func (b *Bed) LeastPrivilege(on bool) error {
	files, err := render(b.dir)
	if err != nil {
		return err
	}
	for _, service := range []string{"nova", "keystone"} {
		name := service + "-policy.yaml"
		text := files[name]
		if on {
			text = files[service+"-least-privilege.yaml"]
		}
		if err := os.WriteFile(filepath.Join(b.dir, "etc", name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// CellDown makes the cell that has every instance one that Nova can't reach: its
// database refuses Nova. CellUp undoes it.
func (b *Bed) CellDown(ctx context.Context) error {
	_, err := b.SQL(ctx, "", "revoke all privileges on nova.* from nova@'127.0.0.1'; kill user nova")
	return err
}

// CellUp undoes CellDown, and returns when Nova sees that its nova-compute is up:
// until then it deletes an instance without ending its domain.
func (b *Bed) CellUp(ctx context.Context) error {
	if _, err := b.SQL(ctx, "", "grant all on nova.* to nova@'127.0.0.1'; kill user nova"); err != nil {
		return err
	}
	return awaitHypervisor(ctx, b)
}

// EndDomains destroys and undefines the domains of Nova's that the bed's libvirtd
// has, if that is up.
func (b *Bed) EndDomains(ctx context.Context) error {
	_, alive, err := b.service(Libvirtd).process()
	if err != nil || !alive {
		return err
	}
	list, err := virsh(ctx, "list", "--all", "--name")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range strings.Fields(list) {
		if !strings.HasPrefix(name, "instance-") {
			continue
		}
		_, _ = virsh(ctx, "destroy", name) // it may be off
		if _, err := virsh(ctx, "undefine", name, "--nvram"); err != nil {
			// A transient one is gone with its QEMU.
			if left, lerr := virsh(ctx, "list", "--all", "--name"); lerr != nil || slices.Contains(strings.Fields(left), name) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func virsh(ctx context.Context, args ...string) (string, error) {
	return do(ctx, "", []string{"LC_ALL=C"}, append([]string{"/usr/bin/virsh", "--quiet", "--connect", "qemu:///system"}, args...)...)
}

// DeleteTree removes everything under Nova's instances_path, as the accident does.
func (b *Bed) DeleteTree() error {
	if err := ground.EmptyDir(b.InstancesPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
