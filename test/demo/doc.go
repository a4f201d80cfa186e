// Command demo shows an incident and its rescue to a person: the files of a running
// guest are deleted and restored. It fails if the guest has lost anything.
//
// Everything happens in the lab's own namespaces, with real libvirt and QEMU. Nothing
// on the machine is changed.
//
// May call: recover, test/lab.
package main
