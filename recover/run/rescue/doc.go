// Package rescue brings an instance's files back in mode reboot, and puts back what the
// guest does not write.
//
//	room:      do the copies still fit?
//	put back:  copy, prove, publish what the guest only reads, while it runs
//	           (all, where nothing else is lost: look again, and done)
//	ahead:     copy the disks while the guest still writes them
//	quiet:     freeze, suspend
//	stage:     bring the copies up to what the suspended guest has, prove them
//	still:     has nobody let it go on?      it ended: prove every copy once more
//	commit:    destroy; publish, own; start or hard reboot; confirm; unpin
//
// May call: recover, journal, procfs, run/backup, run/guest, run/hardreboot,
// run/staging, run/task.
//
// Invariants: until the destroy begins everything is undone by a failure; from there on the
// only way is forward; the domain is destroyed only after every lost file that it holds was
// copied, synced and proven, and only if every name can be given.
package rescue
