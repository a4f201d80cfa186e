package recover

import (
	"fmt"
	"slices"
	"strings"
)

// AboutSuperseded says of each deleted file that is held of an instance on which other file
// its QEMU runs; empty when there are none.
func (i Instance) AboutSuperseded() []string {
	var list []string
	for _, f := range i.Superseded {
		var who []string
		for _, h := range f.Holders {
			who = append(who, fmt.Sprintf("%s %d as descriptor %d", h.Process, h.PID, h.FD))
		}
		other := "its QEMU runs without it"
		n := slices.IndexFunc(i.Files, func(file File) bool { return file.Path == f.Path && len(file.Holders) > 0 })
		if n >= 0 {
			other = fmt.Sprintf("its QEMU runs on another file (inode %d), of which no run has proven that it is a copy", i.Files[n].Inode)
		}
		list = append(list, fmt.Sprintf("%s was lost (inode %d) and is held by %s, and %s: the lost file may be the newer one",
			f.Path, f.Inode, strings.Join(who, ", "), other))
	}
	return list
}

// CureOfSuperseded says how an operator decides which of two files an instance is to have;
// empty when nothing is to be decided.
func (i Instance) CureOfSuperseded() string {
	if len(i.Superseded) == 0 {
		return ""
	}
	return fmt.Sprintf("what is held stays held until somebody decides; if the lost file is right, shut the guest off, and a run with "+
		"--replace-existing puts it back and keeps the other one beside it; if the file that it runs on is right: "+
		"os-rescue keeper release %[1]s --accept-loss last-copy, or os-rescue guard release %[1]s where the guard holds it", i.UUID)
}
