// Package chaos injects faults into rescues, and looks for what was lost.
//
// A trial happens on a lab with one or two guests without an operating system (package
// bare). Each is written to all the time (writer.go) with numbered blocks; a write counts
// as acknowledged only when QEMU has written and flushed it while the guest ran
// (ledger.go). The instances' tree is deleted, a rescue begins, and at points of its
// journal faults are injected (faults.go): processes are killed and stopped, file systems
// are full or fail, somebody interferes, the host goes down. Then the faults end, and an
// operator does what the documentation says (operator.go): resume, and another rescue.
//
// The verdict (judge.go): every acknowledged block is on the disk that the guest has next,
// or on one that os-rescue names. Where a fault itself took the last thing that held a
// disk, before anything was proven, nothing could keep it; there os-rescue must not say
// that it is rescued or intact.
//
// A trial is a script (script.go), drawn by its seed or given by CHAOS_SCRIPT.
package chaos
