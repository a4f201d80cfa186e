package scan

import (
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// withoutMemory leaves out what a domain's QEMU has open as the memory of its guest, or as
// memory that it shares with others (<memoryBacking>, <shmem>), on whatever file system: such
// a file it has mapped, and no image is opened like that (QEMU's softmmu/physmem.c and
// block/file-posix.c). Persistent memory is mapped too, and is data: nothing of a
// domain that has any is left out. Nor is what stands at the path of one of the domain's files.
func withoutMemory(d recover.Domain, own []candidate, places map[string]identity.Status) []candidate {
	isImageElsewhere := func(c candidate) bool {
		for _, at := range places {
			if at.Inode() == c.Inode() {
				return false
			}
		}
		return isImage(c)
	}
	list := slices.DeleteFunc(slices.Clone(own), func(c candidate) bool { return !isImage(c) })
	if slices.Contains(d.Losses, recover.LossVPMEM) || !slices.ContainsFunc(list, isImageElsewhere) {
		return list
	}
	mapped, err := procfs.Mapped(procfs.Dir, d.PID)
	if err != nil {
		return list // as when nothing is mapped: in doubt it is an image
	}
	return slices.DeleteFunc(list, func(c candidate) bool { return isImageElsewhere(c) && mapped[c.Inode().Unborn()] })
}
