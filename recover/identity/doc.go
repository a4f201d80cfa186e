// Package identity asks the kernel what file a descriptor or a name leads to, so that it is
// known again: its device, its number and its birth, at one moment.
//
// May call: recover.
//
// Invariants: what is returned together is of one and the same file; a birth never changes
// while the file lives, and is empty where the file system has none that is its own.
package identity
