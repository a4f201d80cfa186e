// Package procfs shows what processes hold: their open regular files, who they are and
// what they see as "/".
//
// It reads what it says of processes from /proc. A Process is held by a pidfd while it is
// looked at, so that its PID can't become another's in the middle.
//
// May call: recover, identity, plainfile.
//
// Invariants: nothing is opened through a descriptor of another process, and a duplicate of
// one is given only where that keeps nobody from the file (Duplicate); paths are looked
// up below a root that the caller names, links inside it followed, and nothing is written.
// The kernel's suffix " (deleted)" proves nothing: a link count of 0 does.
package procfs
