// Package hostroot finds the "/" in which libvirt and QEMU see the instances, where that is
// not this process's own: in a container, as Kolla's, their instances directory is a volume
// that is mounted elsewhere on the host.
//
//	root := Find(options)        libvirt's process, its pid file, its name, a QEMU; else "/"
//	open root.Path() as "/"
//	root.Refresh()               in a daemon, before each scan
//
// May call: recover/procfs.
//
// Invariants:
//
//   - Trees are compared by the device and the inode of the instances directory, never by
//     mount namespaces: libvirt gives every QEMU one of its own, with the same tree.
//   - Path stays valid, and never leads to the root of another process that has got the PID,
//     until the Root is closed. Refresh changes what it leads to, and not the path.
//   - Whatever can't be established leads to this process's own root, and Name and Note say so.
package hostroot
