package recover

// StartNeeds is what a start of a domain needs beside its disks.
type StartNeeds struct {
	Files []NeededFile // in libvirt's root
	// Kept is what a start through libvirt finds again.
	Kept []KeptState
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

// KeptState is state of a guest beside its disks: a running guest has it in memory, and if it is
// not on disk it ends with that. A start makes it anew and empty, or fails.
type KeptState struct {
	Path string // absolute
	What string // what it is to the domain, for people: "the state of its TPM"
	Loss string // what it is in Domain.Losses: LossVTPM or LossVPMEM
}
