package pin

import (
	"errors"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
)

// GuardRun takes the place of a run's name in pins that are a guard's.
const GuardRun = "guard"

// GuardProcess is the name of the guard's own process in recover.Holder.
const GuardProcess = "os-rescue-guard"

// OpenToHold opens a scanned file's inode afresh through one of its holders, so that
// it lives on: the way that one has it open or, if the file system refuses O_DIRECT,
// without. Then nothing may be read through it. The errors are those of Open, without
// copier.ErrDirectRefused.
func OpenToHold(f recover.File) (copier.Source, error) {
	src, err := Open(f)
	if !errors.Is(err, copier.ErrDirectRefused) {
		return src, err
	}
	return Open(buffered(f))
}

// buffered returns the file as if no holder had it open with O_DIRECT: good enough to
// keep its inode alive.
func buffered(f recover.File) recover.File {
	f.Holders = slices.Clone(f.Holders)
	for n := range f.Holders {
		f.Holders[n].Direct = false
	}
	return f
}
