// Package live brings an instance's files back while its guest runs.
//
//	room:      do the copies still fit?
//	put back:  what the guest only reads
//	define:    save the domain's definition
//	seal:      close the directories of its disks to all but root
//	mirror:    each disk into an empty file like it at its path, renamed away as soon as QEMU has it open
//	ready:     wait until every mirror has all of its disk
//	suspend:   settle; check as images; compare, where that is the proof
//	place:     give the mirrors their disks' names
//	pivot:     move the guest onto them, one by one; own, label, confirm
//	export:    have QEMU show the new disks as they are now, where that is the proof
//	resume:    let it go on, unseal
//	verify:    compare the old inodes with the export while it runs; unpin
//
// May call: recover, beneath, copier, identity, journal, procfs, qcow2, run/guest, run/staging,
// run/task, scan.
//
// Invariants: a half mirror has its disk's name only while QEMU opens it; before the first
// pivot a failure undoes everything but what was put back, after it the guest stays on what it
// is on; when the proof finds that a disk differs, the old one is kept beside the new one.
package live
