package recover

import (
	"fmt"
)

func inodeKey(device, inode uint64) string {
	if device == 0 && inode == 0 {
		return ""
	}
	return fmt.Sprintf("%d:%d", device, inode)
}

// inode identifies a file on this host for as long as somebody holds it.
type inode struct {
	Device, Inode uint64
}

// Key is the inode's name in journals and in the keeper.
func (i inode) Key() string { return inodeKey(i.Device, i.Inode) }
