package hypervisor

import (
	"fmt"

	"libvirt.org/go/libvirtxml"
)

// unexportable says why QEMU may not survive the export of a disk; empty for most disks.
//
// The connections of an export live in the thread of its disk. Since the fixes for
// CVE-2024-7409 (QEMU 9.1, stable releases from 7.2.14 on, and distributions' own) QEMU
// asserts in nbd_blockdev_client_closed, in its blockdev-nbd.c, that one is closed in the main
// thread; before, it changed the same counters there without a lock. Measured: libvirt 9.0
// with QEMU 7.2.22 dies of that when the export of a disk in an IOThread ends. From QEMU 9.0
// and 8.2.3 on they are closed in the main thread (commits f816310d0c32 and 7075d235114b).
//
// Before QEMU 9.0, a suspend and a resume in the middle of an export may end a QEMU whose disk
// is throttled (its issue 2276, blk_do_set_aio_context).
//
// libvirt tells the version of the QEMU that it would start, and not of the one that a guest
// has run in since long before an upgrade: so no version makes an export safe.
func unexportable(disk *libvirtxml.DomainDisk, devices *libvirtxml.DomainDeviceList) string {
	switch d := disk.Driver; {
	case d != nil && (d.IOThread != nil || d.IOThreads != nil && len(d.IOThreads.IOThread) > 0):
		return "has an IOThread"
	case disk.IOTune != nil || disk.ThrottleFilters != nil && len(disk.ThrottleFilters.ThrottleFilter) > 0:
		return "is throttled"
	}
	if c := controllerOf(disk, devices); c != nil && c.Driver != nil &&
		(c.Driver.IOThread != 0 || c.Driver.IOThreads != nil && len(c.Driver.IOThreads.IOThread) > 0) {
		return fmt.Sprintf("is on a %s controller that has an IOThread", c.Type)
	}
	return ""
}

// unmirrorable says why QEMU can't be moved onto a mirror of a disk; empty for most disks.
// Measured with libvirt 9.0 and QEMU 7.2: the filter of a disk that is copied on read keeps
// the old image open after the pivot.
func unmirrorable(disk *libvirtxml.DomainDisk) string {
	if disk.Driver != nil && disk.Driver.CopyOnRead == "on" {
		return "is copied on read, and its QEMU would keep the old image"
	}
	return ""
}

// controllerOf returns the controller that a disk is attached to; nil for a disk that is its
// own device, as every virtio-blk disk is.
func controllerOf(disk *libvirtxml.DomainDisk, devices *libvirtxml.DomainDeviceList) *libvirtxml.DomainController {
	if disk.Target == nil || disk.Address == nil || disk.Address.Drive == nil {
		return nil
	}
	var index uint
	if n := disk.Address.Drive.Controller; n != nil {
		index = *n
	}
	for i := range devices.Controllers {
		c := &devices.Controllers[i]
		if c.Type == disk.Target.Bus && c.Index != nil && *c.Index == index {
			return c
		}
	}
	return nil
}
