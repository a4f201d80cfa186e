// Package oracle holds os-rescue's word against what really happens, in random
// sequences of what befalls the files of instances.
//
// A sequence happens on a host of one to three guests with Nova's layout. They need no
// operating system: QEMU idles, and what a guest would write is written through its
// device's own backend (HMP's qemu-io), so that every byte that a guest should have is
// known (type content). Each step (steps.go) renames, deletes, replaces, mounts,
// snapshots, redefines, starts, stops, rescues. After each step:
//
//	truth    = what the next start of each domain would open and read, looked at with
//	           statx, qemu-img and QEMU's own descriptors, and nothing of os-rescue's
//	verdicts = os-rescue scan, os-rescue check
//	held against each other (rules.go)
//
// At the end each verdict's promise is put to the test (ending.go):
//
//	intact       one more write, destroy, start: every byte is there
//	recoverable  a run, and then the same
//	displaced    the cure that is named makes it intact, and then the same
//	conflict     a run refuses and changes nothing; or it keeps what is equal, and then the same
//	lost         no process has the bytes
//	unknown      only where no looking can tell
//
// A sequence that fails is shrunk (shrink.go) to the few steps that are needed. Each
// step stands for itself: it chooses among what is there when its turn comes, and skips
// itself where it is impossible, so steps can be left out.
package oracle
