package recover

// Relink is a file that still has a name, but not the right one, and that a run gives that
// one: the very inode that QEMU has open, so that nothing is copied and no guest is paused.
type Relink struct {
	Path   string `json:"path"`            // the right name, absolute
	Found  string `json:"found,omitempty"` // the name that it has now; of RemedyMoveBack only
	Remedy Remedy `json:"remedy"`          // RemedyLinkBack or RemedyMoveBack
	Device uint64 `json:"device"`          // of the inode
	Inode  uint64 `json:"inode"`           // as Device
	Birth  string `json:"birth,omitempty"` // as Inode.Birth
}

// Held names the inode as a file of a plan, by which it is looked up in a run's custody.
func (r Relink) Held() FilePlan {
	return FilePlan{Path: r.Path, Device: r.Device, Inode: r.Inode, Birth: r.Birth}
}
