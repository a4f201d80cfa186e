package recover

// MirrorSupport is what a hypervisor can do of what mode live needs.
type MirrorSupport struct {
	// Missing says in words why disks can't be mirrored; "" when they can.
	Missing string
	// Synchronous: what the guest writes meanwhile goes into both files at once,
	// so that no guest can write faster than its mirror follows.
	Synchronous bool
	// Export: Mirrors.Export works.
	Export bool
}

// MirrorRequest says what to mirror where.
type MirrorRequest struct {
	Target         string // of the disk: vda
	Path           string // absolute; an empty file that exists
	Format         string // of the source and the mirror
	BytesPerSecond uint64 // 0 is no limit
	Synchronous    bool
}

// MirrorState is how far a mirror is.
type MirrorState struct {
	Copied int64 // bytes of Total, which grows with what the guest writes
	Total  int64
	// Ready: all is copied, and every later write follows.
	Ready bool
}

// ExportDisk is one disk to be exported.
type ExportDisk struct {
	Target  string // vda
	Scratch string // the path of a file that does not exist yet
}
