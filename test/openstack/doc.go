// Package openstack runs a real OpenStack on one machine, for end-to-end tests:
// Keystone, Placement, Glance, Neutron's API, Nova and libvirt with software
// emulation, from Debian 12's packages, with no systemd and on loopback only.
//
//	openstack.Enter(openstack.Options{}) // from here on inside
//	bed, err := openstack.Up(ctx, openstack.Options{})
//	...
//	client, err := bed.Client(ctx, "demo", "demo")
//	web, err := client.Boot(ctx, openstack.Spec{Name: "web"})
//
// A bed has a machine of its own: namespaces (mount, PID, network, IPC, UTS) on a root
// file system that package ground makes. Nothing of the machine's accounts, /run, ports,
// libvirt or instances is used or changed, and any number of beds can be up side by
// side. The machine lives from Up to Down. What the bed knows is below one directory
// (Options.Dir): databases, configuration, logs, images, the instances and libvirt's
// state, and a pid file for each service.
//
// Up, Down, Purge, Start, Stop, Status and Exec work from outside as well as inside.
// Whatever talks to a service or looks at a file works inside only: Enter runs the
// calling program there. A program that uses the bed from outside calls Begin first.
//
// The instances are guests of package lab, which can tell whether anything of
// theirs was lost.
//
// It needs root and the packages of packages.txt, which test/install.sh installs.
package openstack
