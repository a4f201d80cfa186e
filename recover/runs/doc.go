// Package runs tells of this host's runs: where each stands, its report, which instances
// an unfinished one has in hand, and which files were put back since the last boot.
//
// May call: recover, identity, journal, procfs, statedir.
//
// Invariants: it changes nothing; of a damaged journal what can be read counts, and only the
// report of its own run fails; who holds the host's lock is asked before the journal is
// read.
package runs
