// Package qcow2 looks at qcow2 images that a guest has written and that must not
// be trusted: it reads the header without following anything that it names, and
// lets qemu-img check the structure in a process that can do no harm.
//
// The format is described in QEMU's docs/interop/qcow2.txt:
// https://www.qemu.org/docs/master/interop/qcow2.html
package qcow2
