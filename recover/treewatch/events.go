package treewatch

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// What is heard of a directory (IN_UNMOUNT, IN_Q_OVERFLOW and IN_IGNORED always
// are), and that no symlink in its place is followed.
const (
	events = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	flags  = unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW
)

// masks puts the masks of the events in what one read(2) of an inotify descriptor
// returned into one. IN_IGNORED is left out: the kernel sends it after the event
// that ended the watch (IN_DELETE_SELF, IN_UNMOUNT), and when Set ended it.
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
