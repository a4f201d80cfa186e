// Package treelock lets one run at a time work on an instances directory, whatever state
// directory each has and whichever container it is in.
//
//	lock := Take(settings, info)     ErrBusy names who has it
//	lock.Files()                     for a process that shares it (the witness of a run)
//	lock.Release()                   or the end of the last process that shares it
//
// The locks are on files below the host's /run, not on the directory. flock(2) on a directory of
// CephFS, NFS or GFS2 would keep out the other hosts that share the tree, and they may rescue their
// own instances at the same time. And a purge removes the directory, which a run makes anew: a
// lock on it would stay behind on what nobody finds any more.
//
// A directory is locked by its places: for itself and each directory above it, as far as it is
// there and in the same mount, the identity of that directory and the names that lead down from it. The same
// directory seen through another mount (a container's volume) has at least one place in common, as
// a removed one has with the one that is made anew; two different ones have none.
//
// The host's /run is that of process 1. A container that shows QEMU's descriptors has the
// host's processes; where process 1 may not be looked into, it is this process's own /run.
//
// May call: recover, beneath, statedir.
//
// Invariants: all places are locked, or none; they are locked in one order, so that of two runs that
// begin at once one gets them; nothing is written or locked in the tree itself.
package treelock
