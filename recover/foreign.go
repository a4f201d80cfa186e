package recover

import "fmt"

// Foreign is a deleted file below the instances directory that a process writes which is no
// QEMU of a domain of this host: of a guest that libvirt has lost or never knew, or of a storage
// daemon beside one. It lasts as long as that process.
type Foreign struct {
	// UUID is that of the process's command line, or of the directory in which the file was;
	// empty when neither has one. Nobody has confirmed it.
	UUID    string `json:"uuid,omitempty"`
	Path    string `json:"path"`            // that it had last, as the process sees it
	PID     int    `json:"pid"`             // of the process
	FD      int    `json:"fd"`              // the descriptor's number in that process
	Process string `json:"process"`         // its command name
	Size    int64  `json:"size"`            // bytes
	Device  uint64 `json:"device"`          // of the inode
	Inode   uint64 `json:"inode"`           // as Device
	Birth   string `json:"birth,omitempty"` // as Device
}

// Descriptor is the path by which the file can be read while its process lives.
func (f Foreign) Descriptor() string { return fmt.Sprintf("/proc/%d/fd/%d", f.PID, f.FD) }
