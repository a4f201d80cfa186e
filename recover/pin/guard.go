package pin

import (
	"errors"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
)

// GuardRun takes the place of a run's name in pins that are a guard's.
const GuardRun = "guard"

// GuardProcess is what the guard's own process is called in its scans.
const GuardProcess = "os-rescue-guard"

// OpenToHold opens a scanned file's inode afresh through one of its holders, so that
// it lives on: the way that one has it open or, if the file system refuses O_DIRECT,
// without. The errors are openHeld's.
func OpenToHold(f recover.File) (copier.Source, error) {
	src, err := Open(f)
	if !errors.Is(err, copier.ErrDirectRefused) {
		return src, err
	}
	f.Holders = slices.Clone(f.Holders)
	for n := range f.Holders {
		f.Holders[n].Direct = false
	}
	return Open(f)
}
