// Package plainfile opens and reads files in whose place others can put something else: a
// FIFO that never ends an open, a device, a symlink, a file without an end, one of their own.
//
// May call: nothing of ours.
//
// Invariants:
//
//   - Nothing is opened but a regular file: the open of a device can do something.
//   - Nothing waits for somebody else, and nothing is read without a limit.
package plainfile
