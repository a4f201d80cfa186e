// Package task is the work on one instance in one run: its journaled steps and how each is
// undone, the named state of its guest with the legal transitions, and its report; and what
// the instances of one run share, which is read-only once the run is open.
//
// May call: recover, beneath, copier, journal, owners, pin, statedir.
//
// Invariants: a step has a record before and a record after; undos run last first, each is
// tried whatever becomes of the others, and none is stopped by the interruption that caused
// it; once the state is committed a wish to stop is no longer heard.
package task
