// Package rescue brings an instance's files back in mode reboot, and puts back what the
// guest does not write.
//
//	room:      do the copies still fit?
//	put back:  copy, prove, publish what the guest only reads, while it runs
//	           (where nothing else is lost: keep a backup, look again, unpin; done)
//	define:    save the domain's definition
//	ahead:     copy the disks while the guest still writes them
//	quiet:     freeze, suspend; a guest that has ended is quiet
//	stage:     bring the copies up to what the suspended guest has, prove them
//	backup:    keep copies of them, if that was asked for
//	start:     would it come back on those files, and does the host still start it?
//	still:     has nobody let it go on?      it ended: prove every copy once more
//	names:     can every copy be given its name?
//	commit:    destroy
//	again:     look at the held inodes once more; what was written since is copied again
//	publish:   own, publish; start and confirm, or hard reboot; unpin
//
// May call: recover, journal, procfs, run/backup, run/guest, run/hardreboot,
// run/staging, run/task, startable.
//
// Invariants: until the destroy begins a failure undoes everything but what was put back; from
// there on the only way is forward, and not even a fault in the task's state stops it; the
// domain is destroyed only after every lost file that it holds was copied, synced and proven,
// and only if every name can be given; nothing is published that an inode is newer than.
package rescue
