// Package leftover says what runs have left behind on a host: what the keeper holds, and
// directories with staged copies. It lets go of what the keeper holds when an operator says so.
//
// May call: recover, beneath, keeper, pin, procfs, runs, statedir.
//
// Invariants: nothing of an unfinished run is let go, nor, unless that is said, the last copy of
// a lost file; where it can't be found out, a copy is the last one.
package leftover
