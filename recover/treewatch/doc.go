// Package treewatch says that something in a set of directories has changed.
//
// It hears of names alone: made, deleted, moved, and of the directories
// themselves. What is written into a file is never heard, since QEMU writes its
// disks all the time. It does not say what happened: events are lost when the
// kernel's queue is full, and a name can be another file by the time it is looked
// at, so whoever hears of a change has to look all the same.
//
// inotify is silent on what another client of a network file system does, on a
// mount over a watched directory and on a lazy unmount (inotify(7), "Limitations
// and caveats"): whoever must not miss those looks again now and then.
package treewatch
