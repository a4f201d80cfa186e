// Package verdict is the judgement: it says what the facts about a file mean, and what the
// states of an instance's files mean together. Every command takes its word from here.
//
// It knows no path, process or inode. Whoever looks (package scan) establishes facts: which
// inode the domain's own QEMU has open for a file, what stands at the file's path compared
// with that inode, and which name the inode still has. One table turns the facts into a
// state and a remedy; a second step turns the worst file into the verdict.
//
// May call: recover.
//
// Invariants (law 0): a file is present only if its path leads to the very inode that its
// holder has open, or if its domain is off; what can't be established is unknown; a deleted
// file that a QEMU has open, and can read, is never lost, intact or displaced.
package verdict
