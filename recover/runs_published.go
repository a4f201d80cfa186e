package recover

import (
	"golang.org/x/sys/unix"
)

// provenFiles knows the files that runs since the host's last boot have put
// back: what a read-only file's old inode, still held by QEMU, was copied to.
type provenFiles map[provenKey]published

type provenKey struct {
	path, source string
}

// has is true when the file at f's path is the proven copy of the inode that is held.
func (p provenFiles) has(f File, at unix.Stat_t) bool {
	got, ok := p[provenKey{f.Path, inodeKey(f.Device, f.Inode)}]
	return ok && got.Device == at.Dev && got.Inode == at.Ino && (f.Writable || got.Size == at.Size)
}

// published reads the journals. Inode numbers of held files mean something
// only until the next boot, so older runs are passed over.
func (r hostRuns) published() (provenFiles, error) {
	files := provenFiles{}
	boot, err := bootID(procDir)
	if err != nil {
		return nil, err
	}
	ids, err := r.state.list()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		records, _ := readJournal(r.state.run(id)) // of a damaged one, what can be read
		if len(records) == 0 {
			continue
		}
		if head, err := headOf(records); err != nil || head.BootID != boot {
			continue
		}
		for path, all := range publishedIn(records) {
			for _, p := range all {
				files[provenKey{path, p.Source}] = p
			}
		}
	}
	return files, nil
}
