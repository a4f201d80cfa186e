// Package run carries a plan out: one session from its locks to the report, the
// finishing of an interrupted one, and the dispatch per instance to the room that does its
// work.
//
//	Prepare:   lock state and instances directory, scan, pin, sign in, choose, pin again, unpin the others, plan
//	Execute:   lock in Nova, re-read; per instance, N at a time:
//	             rescue, live, backup or hardreboot; unlock; settle
//	Resume:    lock both, read the journal, take the pins over, sign in; then Execute; per
//	           instance: undo or go on, by what is there now
//	Undo:      a run was killed: per instance, undo what can be undone without Nova
//
// May call: recover, beneath, identity, inventory, journal, keeper, manifest, novalock, owners,
// pin, plan, procfs, run/backup, run/guest, run/hardreboot, run/live, run/relink, run/rescue,
// run/staging, run/task, runs, scan, selection, statedir, treelock.
//
// Invariants: what the scan finds lost is pinned before Nova is asked and before anything is
// planned; nothing of an instance is touched before the journal says so; an instance ends with
// its files back, as it was found, or unsettled for a resume, and the report says which; nobody
// else imports the rooms below.
package run
