// Package pin keeps lost inodes alive: it says what the keeper and the guard of this host
// hold and for whom, opens a held inode afresh the way QEMU has it open, and is a run's
// custody of what it copies from.
//
// May call: recover, copier, identity, journal, keeper, manifest, procfs, statedir.
//
// Invariants: an inode is opened through a holder and then looked at, never trusted by its
// number; what QEMU reads with O_DIRECT is read so here; a duplicate of QEMU's descriptor, which
// keeps its locks, is taken only of an inode that has no name, so that no start waits for it; a pin that was there before a run
// is not among those that ReleaseOthers and ReleaseOwn release.
package pin
