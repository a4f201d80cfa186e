package recover

import "fmt"

// InodeKey returns the key of an inode, "device:inode"; empty for zeros.
func InodeKey(device, inode uint64) string {
	if device == 0 && inode == 0 {
		return ""
	}
	return fmt.Sprintf("%d:%d", device, inode)
}

// Inode identifies a file on this host while a process holds it open. Afterwards another
// file may get the same number.
type Inode struct {
	Device uint64 // st_dev (stat(2))
	Inode  uint64 // st_ino
}

// Key returns the inode's name in journals and in the keeper.
func (i Inode) Key() string { return InodeKey(i.Device, i.Inode) }
