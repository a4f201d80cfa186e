// Package guard holds every file of the host's instances open, notices deletions, and lets
// go what nobody needs any more.
//
//	treescan:   a name in the tree has changed: mark what is gone, hold what is new
//	fullscan:   at intervals, when the tree scan has found something and when libvirt tells of
//	            a change: what does each domain need?
//	judgement:  after a full scan, every deleted file: does an instance that exists need it,
//	            may it go, or can that not be said yet?
//	poll:       has a file lost its name without an event?
//	lock, nova: lock what has lost files; what Nova says of an instance that is gone
//
// May call: recover, beneath, copier, identity, inventory, keeper, novalock, pin, procfs, runs,
// scan, statedir, treewatch, verdict.
//
// Invariants: in doubt a file is held; what a process writes is never let go; of a deletion that came after a scan the
// scan's report says nothing; holdings, incidents and records are locked by themselves, and
// while records is, incidents may be asked, never the other way round; none is while Nova is
// asked; at its end the guard
// hands the deleted files that may be needed to the keeper.
package guard
