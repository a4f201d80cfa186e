// Package owners turns the configured table of owners and modes into numbers, as they are
// now and in the root that files are published in.
//
// May call: recover, beneath.
//
// Invariants: a name that is missing is an error before anything is touched; what lies
// outside the instances directory keeps the owner that its lost inode had.
package owners
