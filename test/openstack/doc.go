// Package openstack runs a real OpenStack on one machine, for end-to-end tests:
// Keystone, Placement, Glance, Neutron's API, Nova and libvirt with software
// emulation, from Debian 12's packages, with no systemd and on loopback only.
//
//	bed, err := openstack.Up(ctx, openstack.Options{})
//	...
//	client, err := bed.Client(ctx, "demo", "demo")
//	web, err := client.Boot(ctx, openstack.Spec{Name: "web"})
//	...
//	err = bed.Down(ctx)
//
// Everything that the bed knows is below one directory (Options.Dir): databases,
// configuration, logs, images, and a pid file for each process that it started.
// What can't be elsewhere is at its default path, so that os-rescue finds it
// there: the instances in /var/lib/nova/instances, libvirt's sockets in
// /run/libvirt. A machine that has instances or a libvirtd of its own is refused.
//
// The instances are guests of package lab, which can tell whether anything of
// theirs was lost.
//
// It needs root and the packages of packages.txt, which test/install.sh installs.
package openstack
