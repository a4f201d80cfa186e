package recover

import (
	"errors"
	"slices"

	"github.com/os-rescue/os-rescue/recover/copier"
)

// guardRun takes the place of a run's name in pins that are a guard's.
const guardRun = "guard"

// guardProcess is what the guard's own process is called in its scans.
const guardProcess = "os-rescue-guard"

// openToHold opens a scanned file's inode afresh through one of its holders, so that
// it lives on: the way that one has it open or, if the file system refuses O_DIRECT,
// without. The errors are openHeld's.
func openToHold(f File) (copier.Source, error) {
	src, err := openHeld(f)
	if !errors.Is(err, copier.ErrDirectRefused) {
		return src, err
	}
	f.Holders = slices.Clone(f.Holders)
	for n := range f.Holders {
		f.Holders[n].Direct = false
	}
	return openHeld(f)
}
