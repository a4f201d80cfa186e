package recover

// MirrorSupport says which of mode live's needs a hypervisor meets.
type MirrorSupport struct {
	// Missing says why disks can't be mirrored; empty when they can.
	Missing string
	// Synchronous is true when the hypervisor can write into both files at once, so that
	// a guest can't write faster than its mirror follows.
	Synchronous bool
	// Export is true when Mirrors.Export works.
	Export bool
}

// MirrorRequest says which disk to mirror, and into which file.
type MirrorRequest struct {
	Target         string // of the disk: vda
	Path           string // absolute, of an empty file that exists
	Format         string // of both files
	BytesPerSecond uint64 // 0 is no limit
	Synchronous    bool   // see MirrorSupport
}

// MirrorState is the progress of a mirror.
type MirrorState struct {
	Copied int64 // bytes of Total
	Total  int64 // bytes; it grows with what the guest writes
	// Ready is true when everything is copied and later writes go into both files.
	Ready bool
}

// ExportDisk is one disk to be exported.
type ExportDisk struct {
	Target  string // vda
	Scratch string // the path of a file that does not exist yet
}
