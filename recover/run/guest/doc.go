// Package guest is the domain of one task: it brings it to where it writes nothing, lets
// it go on, and tells whether it is still the process that was scanned.
//
// May call: recover, journal, plainfile, procfs, run/task, statedir.
//
// Invariants: a guest is suspended only after a look, and only one that ran is let go on; a
// freeze that may have happened is thawed; QEMU's counters of what the guest wrote are read
// after the suspend and again before anything is destroyed.
package guest
