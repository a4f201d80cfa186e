package runs

import (
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// Published are the files that runs have published since the host's last boot, by path
// and by the held inode of which they are proven copies. QEMU keeps the old inode of a
// read-only file open until its next start.
type Published map[publishedKey]journal.Published

type publishedKey struct {
	path   string
	source recover.Inode // without a birth where the run's release knew none
}

// Copy returns the last published copy of an inode that a process holds, by its path and
// by the inode, and whether there is one.
func (p Published) Copy(path string, source recover.Inode) (journal.Published, bool) {
	got, ok := p[publishedKey{path, source}]
	if !ok {
		// As held it is trusted by its number: no other file has had it since.
		got, ok = p[publishedKey{path, source.Unborn()}]
	}
	return got, ok
}

// IsUnwritten is true when the file at f's path is the published copy of f's held inode, as Has
// says, and is as it was published: journal.Published.IsUnwritten.
func (p Published) IsUnwritten(f recover.File, at identity.Status, held bool) bool {
	got, ok := p.Copy(f.Path, f.Identity())
	return ok && got.Identity().Is(at.Inode(), held) && got.IsUnwritten(at)
}

// Has is true when the file at f's path, whose status is at, is a proven copy of f's held
// inode. held says that a process has the file at the path open: without that a number
// proves nothing where the file's birth is not known. It may have been written since:
// IsUnwritten.
//
// A disk that a process still has open for writing has no proven copy: what was copied is
// an earlier state of it.
func (p Published) Has(f recover.File, at identity.Status, held bool) bool {
	if f.Writable && slices.ContainsFunc(f.Holders, func(h recover.Holder) bool { return h.Writable }) {
		return false
	}
	got, ok := p.Copy(f.Path, f.Identity())
	return ok && got.Identity().Is(at.Inode(), held) && (f.Writable || got.Size == at.Size)
}

// Published reads the journals of all runs. It skips runs from before the last boot: the
// numbers of held inodes are valid only until the next one.
func (r Runs) Published() (Published, error) {
	files := Published{}
	boot, err := procfs.BootID(procfs.Dir)
	if err != nil {
		return nil, err
	}
	ids, err := r.state.List()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		records, _ := journal.Read(r.state.Run(id)) // of a damaged journal, what can be read
		if len(records) == 0 {
			continue
		}
		if head, err := journal.HeaderOf(records); err != nil || head.BootID != boot {
			continue
		}
		for path, copies := range journal.PublishedIn(records) {
			for _, p := range copies {
				if source, ok := recover.ParseKey(p.Source); ok {
					files[publishedKey{path, source}] = p
				}
			}
		}
	}
	return files, nil
}
