package recover

// StartNeeds is what a start of a domain needs beside its disks.
type StartNeeds struct {
	Files []NeededFile // in libvirt's root
	// Lacking says what the host lacks for it, one sentence each, which names the cure.
	Lacking []string
}

// NeededFile is a file that a start opens or runs.
type NeededFile struct {
	Path       string // absolute
	What       string // what it is to the domain, for people: "its emulator"
	Executable bool   // it is run
	OnlyNova   bool   // only a start through Nova needs it, which makes anew what libvirt would keep
}
