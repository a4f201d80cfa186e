package recover

import (
	"fmt"
)

// Engine rescues instances on one compute node. Its fields are set once, before
// its first use; its methods are safe for concurrent use, but only one run at a
// time is let through on a host, whoever starts it.
type Engine struct {
	Settings   Settings
	Hypervisor Hypervisor
	Progress   Progress // never nil; NoProgress{} shows nothing
	// Failpoint, if not nil, is called at every journal point with its name,
	// "copy.begin" or "copy.done". It is how the tests crash a run at each one.
	Failpoint func(point string)
}

func inodeKey(device, inode uint64) string {
	if device == 0 && inode == 0 {
		return ""
	}
	return fmt.Sprintf("%d:%d", device, inode)
}
