// Package treewatch signals that something in a set of directories has changed.
//
// It watches names only: made, deleted or moved, in the directories and of the
// directories themselves. It does not watch the content of files, because QEMU
// writes its disks all the time. It does not say what happened: events are lost when
// the kernel's queue is full, and a name can be another file by the time it is
// looked up. The receiver of a signal has to look at the directories anyway.
//
// inotify does not report changes by another client of a network file system, a
// mount over a watched directory or a lazy unmount (inotify(7), "Limitations and
// caveats"). A caller that must not miss those looks again at intervals.
//
// May call: nothing of ours.
//
// Invariants:
//
//   - A change is signalled, or Problem says why one may have been missed.
//   - No goroutine that watches waits for the receiver of a signal.
//   - Nothing is changed in a watched directory, and no symlink in its place is
//     followed.
package treewatch
