// Package statedir knows the layout of /var/lib/os-rescue: the runs' directories, the
// lock that lets one run of it at a time through, and how a small file is written whole or not
// at all.
//
// May call: recover, plainfile.
//
// Invariants: only root gets in (0700, files 0600); a lock of runs belongs to an open
// file, so it ends with the processes that have it; a file of WriteFile and a run of NewRun
// are on disk when those return.
package statedir
