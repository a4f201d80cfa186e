package scan

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// matching says which open file of a domain's QEMU is which file of the definition. Each
// image of a running domain is open in its QEMU exactly once: a file that the name and the
// identity don't tell is found by elimination.
type matching struct {
	files   []recover.File
	places  map[string]identity.Status // what stands at the files' paths, by path
	known   map[string]recover.Inode   // which inode each path is known to have been, by path
	claimed map[*openFile]bool
	open    []*openFile
	of      map[string]*openFile   // by path
	unsure  map[string][]*openFile // candidates between which nothing decides, by path
	headers map[*openFile]header
}

// header is what was found at the beginning of an open file.
type header struct {
	qcow2.Header
	isQCOW2    bool
	unreadable bool // it says nothing about what the file is
}

// match matches the files of a definition with the files that its QEMU has open. told are
// those that the operator named, by path.
func match(
	files []recover.File, open []*openFile, told map[string]*openFile, places map[string]identity.Status,
	known map[string]recover.Inode,
) *matching {
	m := &matching{
		places: places, known: known, open: open,
		claimed: map[*openFile]bool{}, of: map[string]*openFile{}, unsure: map[string][]*openFile{}, headers: map[*openFile]header{},
	}
	for _, f := range files {
		if f.Role != recover.RoleConsoleLog && f.Role != recover.RoleDiskInfo {
			m.files = append(m.files, f)
		}
	}
	for _, f := range m.files {
		if o := told[f.Path]; o != nil {
			m.claim(f, o)
		}
	}
	m.byKnownIdentity()
	m.byPlace()
	for _, evidence := range []func(recover.File, *openFile) bool{m.isNamed, isTail, isNamesake, isBaseName, isAnyImage} {
		for _, fits := range []func(recover.File, *openFile) bool{m.isLikely, m.fits} {
			m.eliminate(func(f recover.File, o *openFile) bool { return evidence(f, o) && fits(f, o) })
		}
	}
	// An image that is not what libvirt says of it.
	m.eliminate(func(f recover.File, o *openFile) bool {
		return m.isNamed(f, o) && m.isOpenedAs(f, o) && !m.isExchanged(f, o)
	})
	for _, f := range m.files {
		if m.of[f.Path] != nil {
			continue
		}
		m.unsure[f.Path] = slices.DeleteFunc(m.unclaimed(), func(o *openFile) bool { return !m.fits(f, o) })
	}
	return m
}

// unclaimed returns the open files that are none of the definition's.
func (m *matching) unclaimed() []*openFile {
	return slices.DeleteFunc(slices.Clone(m.open), func(o *openFile) bool { return m.claimed[o] || o.isPackaged() })
}

func (m *matching) claim(f recover.File, o *openFile) {
	m.of[f.Path], m.claimed[o] = o, true
}

// dirsOf returns the directories of the open files of a directory: where that may be now.
func (m *matching) dirsOf(dir string) []string {
	var dirs []string
	for _, f := range m.files {
		if o := m.of[f.Path]; o != nil && filepath.Dir(f.Path) == dir {
			for _, name := range o.names() {
				dirs = append(dirs, filepath.Dir(name))
			}
		}
	}
	return dirs
}

// byInode returns the open file of that inode that nobody has claimed yet.
func (m *matching) byInode(inode recover.Inode) *openFile {
	for _, o := range m.open {
		if o.inode == inode && !m.claimed[o] {
			return o
		}
	}
	return nil
}

// byKnownIdentity finds the files whose inode was seen before, when all was well: a name
// that was exchanged with another disk's since does not deceive it.
func (m *matching) byKnownIdentity() {
	for _, f := range m.files {
		if inode, ok := m.known[f.Path]; ok && m.of[f.Path] == nil {
			if o := m.byInode(inode); o != nil && m.fits(f, o) {
				m.claim(f, o)
			}
		}
	}
}

// byPlace finds the files that stand at their paths.
func (m *matching) byPlace() {
	for _, f := range m.files {
		at, ok := m.places[f.Path]
		inode := at.Inode()
		if m.of[f.Path] != nil || !ok {
			continue
		}
		if o := m.byInode(inode); o != nil && !m.isExchanged(f, o) {
			m.claim(f, o)
			continue
		}
		// Two disks may share a backing file or an ISO under two names.
		shared := func(o *openFile) bool { return o.inode == inode && !f.Writable && !o.writable() }
		if n := slices.IndexFunc(m.open, shared); n >= 0 {
			m.claim(f, m.open[n])
		}
	}
}

// isExchanged is true when the open file that stands at f's path looks like another disk,
// and another open file looks like f: their names were exchanged.
func (m *matching) isExchanged(f recover.File, o *openFile) bool {
	disks := 0
	for _, other := range m.files {
		if other.Writable {
			disks++
		}
	}
	return f.Writable && disks > 1 && !m.isLikely(f, o) &&
		slices.ContainsFunc(m.open, func(other *openFile) bool { return other != o && !m.claimed[other] && m.isLikely(f, other) })
}

// eliminate matches files that have exactly one candidate, until there are none. Two files
// that have the same single candidate keep each other from it.
func (m *matching) eliminate(fits func(recover.File, *openFile) bool) {
	for {
		only := map[*openFile][]recover.File{}
		for _, f := range m.files {
			if m.of[f.Path] != nil {
				continue
			}
			var found []*openFile
			for _, o := range m.open {
				if !m.claimed[o] && fits(f, o) {
					found = append(found, o)
				}
			}
			if len(found) == 1 {
				only[found[0]] = append(only[found[0]], f)
			}
		}
		progress := false
		for o, files := range only {
			if len(files) == 1 {
				m.claim(files[0], o)
				progress = true
			}
		}
		if !progress {
			return
		}
	}
}

// isNamed is true for an open file whose link is the path.
func (m *matching) isNamed(f recover.File, o *openFile) bool {
	for _, c := range o.fds {
		for _, name := range procfs.PathsOf(c.Link, c.Unlinked()) {
			if name == f.Path || name == f.Resolved {
				return true
			}
			if m.isAnothers(f, name) { // "x (deleted)" may be the name of another file of the domain
				break
			}
		}
	}
	return false
}

func (m *matching) isAnothers(f recover.File, name string) bool {
	return slices.ContainsFunc(m.files, func(other recover.File) bool {
		return other.Path != f.Path && (other.Path == name || other.Resolved == name)
	})
}

// isTail is true for an open file whose mount was detached since: its link begins at that
// mount's root, and ends like the path, with at least one directory.
func isTail(f recover.File, o *openFile) bool {
	return slices.ContainsFunc(o.names(), func(name string) bool {
		return strings.Count(name, "/") > 1 && strings.HasSuffix(f.Path, name)
	})
}

// isNamesake is true for an open file of the same name in a directory of the same name: a
// tree that was moved.
func isNamesake(f recover.File, o *openFile) bool {
	return slices.ContainsFunc(o.names(), func(name string) bool {
		return filepath.Base(name) == filepath.Base(f.Path) && filepath.Base(filepath.Dir(name)) == filepath.Base(filepath.Dir(f.Path))
	})
}

// isBaseName is true for an open file of the same name in any directory.
func isBaseName(f recover.File, o *openFile) bool {
	return slices.ContainsFunc(o.names(), func(name string) bool { return filepath.Base(name) == filepath.Base(f.Path) })
}

// isAnyImage is no evidence: only what is left over counts.
func isAnyImage(_ recover.File, o *openFile) bool { return !o.isPackaged() }

// fits is true for an open file that may be the definition's file: it is open for writing if
// the guest writes it, and it is a qcow2 image if libvirt says so. A file that an NFS client
// renamed on deletion is still in its directory.
func (m *matching) fits(f recover.File, o *openFile) bool {
	if !m.isOpenedAs(f, o) {
		return false
	}
	if o.first().SillyRenamed() && filepath.Dir(o.first().Link) != filepath.Dir(f.Path) {
		return false
	}
	if f.Format != "qcow2" {
		return true
	}
	h := m.header(o)
	return h.isQCOW2 || h.unreadable
}

// isOpenedAs is false for an open file that QEMU can't write, if the guest writes f. A file
// that the guest only reads may be open for writing: a block job writes it, or it was the top
// of the chain before an external snapshot.
func (m *matching) isOpenedAs(f recover.File, o *openFile) bool { return o.writable() || !f.Writable }

// isLikely is true for an open file that fits, that QEMU can write if and only if the guest
// writes f, and whose header names the backing file that libvirt names. What a header says is compared, never opened.
func (m *matching) isLikely(f recover.File, o *openFile) bool {
	if !m.fits(f, o) || o.writable() != f.Writable {
		return false
	}
	h := m.header(o)
	switch {
	case h.unreadable:
		return false
	case f.Format != "qcow2":
		return !h.isQCOW2
	case h.BackingFile == "" || f.Backing == "":
		return (h.BackingFile == "") == (f.Backing == "")
	}
	return strings.Contains(h.BackingFile, filepath.Base(f.Backing))
}

func (m *matching) header(o *openFile) header {
	h, ok := m.headers[o]
	if !ok {
		h = o.header()
		m.headers[o] = h
	}
	return h
}
