// Package task is the work on one instance in one run: its journaled steps and how each is
// undone, the named state of its guest with the legal transitions, and its report; and what
// the instances of one run share, which is read-only once the run is open.
//
// The states of a guest, and what may happen to it in each:
//
//	as found          suspend: suspended            ended: ended      power off: powered off
//	                  commit: committed             keep old: old disk kept
//	suspended         go on: as found               ended: ended      power off: powered off
//	                  commit: committed
//	ended             commit: off                   ended: ended      power off: powered off
//	powered off       commit: stays off
//	committed         destroyed, crash: off         revert: as found  keep old: old disk kept
//	                  commit, go on: committed
//	off               Nova stops: stopped by Nova   commit: off
//	stays off         commit: stays off
//	stopped by Nova   nothing
//	old disk kept     nothing
//
// May call: recover, beneath, copier, identity, journal, owners, pin, statedir.
//
// Invariants: a step has a record before and a record after; undos run last first, each is
// tried whatever becomes of the others, and none is stopped by the interruption that caused
// it; once the state is committed a wish to stop is no longer heard; an event that can't happen
// in a state changes nothing, and stops the work only while the guest can be left as it was
// found.
package task
