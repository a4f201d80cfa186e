// Package qcow2 inspects qcow2 images that a guest has written and that must not
// be trusted. It parses their headers, and lets qemu-img check their structure and
// compare disks.
//
// The format is described in QEMU's docs/interop/qcow2.txt:
// https://www.qemu.org/docs/master/interop/qcow2.html
//
// May call: plainfile, procfs.
//
// Invariants:
//
//   - No name in an image is followed, and no format is probed.
//   - qemu-img runs confined: as nobody else, without capabilities, network or environment,
//     with few system calls, and with limits on memory and files.
//   - No image is written.
package qcow2
