package runs

import (
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// Published are the files that runs have published since the host's last boot, by path
// and by the held inode of which they are proven copies. QEMU keeps the old inode of a
// read-only file open until its next start.
type Published map[publishedKey]journal.Published

type publishedKey struct {
	path, source string
}

// Copy returns the last published copy of a held inode, by its path and by the inode's
// key (recover.InodeKey), and whether there is one.
func (p Published) Copy(path, source string) (journal.Published, bool) {
	got, ok := p[publishedKey{path, source}]
	return got, ok
}

// Has is true when the file at f's path, whose status is at, is a proven copy of f's
// held inode.
func (p Published) Has(f recover.File, at unix.Stat_t) bool {
	got, ok := p.Copy(f.Path, recover.InodeKey(f.Device, f.Inode))
	return ok && got.Device == at.Dev && got.Inode == at.Ino && (f.Writable || got.Size == at.Size)
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
				files[publishedKey{path, p.Source}] = p
			}
		}
	}
	return files, nil
}
