package scan

import (
	"errors"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// loseStale makes a missing file of a deleted one of which nobody can read a byte any more:
// one that another client of an NFSv3 server has deleted, which keeps no file that is only
// open. It opens the file, as a run would, and changes nothing.
func loseStale(f *recover.File) {
	if !f.Lost() || len(f.Holders) == 0 {
		return
	}
	src, err := pin.Open(*f)
	if err == nil {
		src.File.Close()
		return
	}
	if !errors.Is(err, pin.ErrStale) {
		return // a plan says what is wrong
	}
	f.State, f.Remedy, f.Holders = recover.FileMissing, "", []recover.Holder{}
	if verdict.KindOf(f.Role) == verdict.Essential {
		f.Remedy = recover.RemedyRestore
	}
	f.Reason = "another client of its file server has deleted it, and the server keeps no file for those that have it open, " +
		"so that even QEMU's own descriptor is dead (ESTALE); a mount with NFSv4.2 keeps it"
}
