package recover

import "golang.org/x/sys/unix"

// provenFiles are the files that runs have published since the host's last boot, by path
// and by the held inode of which they are proven copies. QEMU keeps the old inode of a
// read-only file open until its next start.
type provenFiles map[provenKey]published

type provenKey struct {
	path, source string
}

// has is true when the file at f's path, whose status is at, is a proven copy of f's
// held inode.
func (p provenFiles) has(f File, at unix.Stat_t) bool {
	got, ok := p[provenKey{f.Path, inodeKey(f.Device, f.Inode)}]
	return ok && got.Device == at.Dev && got.Inode == at.Ino && (f.Writable || got.Size == at.Size)
}

// published reads the journals of all runs. It skips runs from before the last boot: the
// numbers of held inodes are valid only until the next one.
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
		records, _ := readJournal(r.state.run(id)) // of a damaged journal, what can be read
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
