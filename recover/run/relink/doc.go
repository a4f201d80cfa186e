// Package relink gives files that still have a name their right one back: it links or renames
// the very inode that QEMU has open, while the guest runs.
//
// May call: recover, beneath, identity, journal, run/task.
//
// Invariants: nothing that stands at a path is replaced; only the inode that QEMU has open is
// linked or renamed, told by a descriptor of it, and where nobody has one any more by device,
// number and birth; a name is taken back on failure only if the file keeps another one.
package relink
