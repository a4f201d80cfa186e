// Package staging makes the copies of one instance: it finds a candidate for each file (an
// identical one at the path, one of an interrupted run, one copied ahead, or a new one),
// proves it, and gives it owner, mode and, last, its name.
//
// May call: recover, beneath, copier, journal, keeper, owners, qcow2, run/task, space.
//
// Invariants: a copy lies on the file system that it will live on, in a directory that only
// root gets into; nothing is published that was not compared with its source in full or is
// its clone; nothing at a path is ever replaced; what may be the only copy is never removed.
package staging
