// Package live brings an instance's files back while its guest runs.
//
//	seal:      close the directories of its disks to all but root
//	put back:  what the guest only reads
//	mirror:    each disk into an empty file at its path, renamed away as soon as QEMU has it open
//	ready:     wait until every mirror has all of its disk
//	suspend:   settle, check as images, compare if asked for
//	place:     give the mirrors their disks' names
//	pivot:     move the guest onto them, one by one; own, label, confirm
//	resume:    unseal, let it go on
//	verify:    compare the old inodes with an export of the new disks while it runs; unpin
//
// May call: recover, beneath, journal, procfs, qcow2, run/guest, run/staging, run/task,
// scan.
//
// Invariants: a half mirror never has its disk's name while anybody could start it; before the
// first pivot everything is undone by a failure, after it the guest stays on what it is on; what
// the proof finds different is kept beside the new disk.
package live
