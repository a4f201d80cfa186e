package treewatch

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The events of a directory that are received (IN_UNMOUNT, IN_Q_OVERFLOW and
// IN_IGNORED always are), and flags by which a symlink in its place is not followed.
const (
	events = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	flags  = unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW
)

// masks joins the masks of all events in buf, the result of one read(2) of an inotify
// descriptor. It leaves IN_IGNORED out: the kernel sends that after the event that
// ended the watch (IN_DELETE_SELF, IN_UNMOUNT), and when Set ended it.
func masks(buf []byte) uint32 {
	var all uint32
	for len(buf) >= unix.SizeofInotifyEvent {
		// struct inotify_event: int wd; uint32_t mask, cookie, len; char name[len]
		mask := binary.NativeEndian.Uint32(buf[4:])
		name := binary.NativeEndian.Uint32(buf[12:])
		all |= mask
		buf = buf[unix.SizeofInotifyEvent:]
		buf = buf[min(uint64(name), uint64(len(buf))):]
	}
	return all &^ unix.IN_IGNORED
}
