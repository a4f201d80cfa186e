// Package novalock locks instances in Nova while their files are missing, and undoes its
// own locks and nobody else's.
//
// May call: recover.
//
// Invariants: a lock that somebody had made before stays; one is undone only while its
// reason is still the one that it was made with, where Nova keeps reasons.
package novalock
