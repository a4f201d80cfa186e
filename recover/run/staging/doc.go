// Package staging makes the copies of one instance: it finds a candidate for each file (an
// identical one at the path, one of an interrupted run, one copied ahead, or a new one),
// proves it, and gives it owner, mode and, last, its name.
//
// May call: recover, beneath, copier, identity, journal, keeper, owners, pin, procfs,
// qcow2, run/task, space.
//
// Beside the copies are what they need: room, the seal on a directory in which libvirt creates
// files, and the release of the old files when the new ones are back, and the look at what a started guest has open.
//
// Invariants: a copy lies on the file system that it will live on, in a directory that only
// root gets into; nothing is published that was not compared with its source in full or is
// its clone, and an interrupted run's proof counts only when the source can't have changed or
// is gone; what stands at a path is never written over, at most it is moved aside; what may be
// the only copy is never removed.
package staging
