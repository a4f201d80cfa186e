// Package guard holds every file of the host's instances open, notices deletions, and lets
// go what nobody needs any more.
//
//	treescan:   a name in the tree has changed: hold what is new, mark what is gone
//	fullscan:   at intervals and when libvirt tells of a change: what does each domain need?
//	judgement:  every deleted file: does an instance that exists need it, may it go, or can
//	            that not be said yet?
//	novaside:   lock what has lost files; what Nova says of an instance that is gone
//
// May call: recover, beneath, copier, inventory, keeper, novalock, pin, procfs, runs,
// scan, statedir, treewatch.
//
// Invariants: in doubt a file is held; holdings, incidents and records have a lock each, and
// none is held while another is taken or Nova is asked; what ends the guard hands the needed
// files to the keeper.
package guard
