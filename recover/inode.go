package recover

import "fmt"

func inodeKey(device, inode uint64) string {
	if device == 0 && inode == 0 {
		return ""
	}
	return fmt.Sprintf("%d:%d", device, inode)
}
