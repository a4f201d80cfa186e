package guard

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/identity"
)

// treeHolding is how one scan of the tree holds what is new.
type treeHolding struct {
	*treeScan
	tally   *tally
	known   map[string]bool // the instances of the last full scan
	held    int
	refused bool // by the file system
	unheld  faults
}

// visit holds a file that the walk found, unless there are too many, and notes its name.
func (w *treeHolding) visit(f treeFile, dir *beneath.Dir, name string) {
	known := w.holds.update(f.inode, func(h *guardHold) {
		h.Path = f.path
		if w.known[f.owner] || len(h.Owners) < mostStrayOwn {
			h.addOwner(f.owner)
		}
	})
	if known || f.ofRun { // a mirror has its disk's name for a moment: of that it is held
		return
	}
	if !w.holdable.mayHold(dir) {
		w.refused = true
		return
	}
	if !w.tally.admits(f.path, f.owner) {
		return
	}
	m := holdMemory{Path: f.path, Role: recover.RoleOther}
	m.addOwner(f.owner)
	if f.owner != "" && name == "console.log" { // it may be gone before a full scan says what it is
		m.Role = recover.RoleConsoleLog
	}
	w.hold(dir, name, m, nil)
}

// holdNamed holds a file that a definition names, if it is not held yet. Without an inode it is
// the one that stands at the path.
func (w *treeHolding) holdNamed(m holdMemory) {
	if m.Inode != 0 && w.holds.has(m.inode()) {
		return
	}
	dir, err := w.root.OpenDir(filepath.Dir(m.Path))
	if err != nil {
		return // the full scan says what is wrong with it
	}
	defer dir.Close()
	name := filepath.Base(m.Path)
	st, err := dir.Stat(name)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	key := st.Inode()
	if meant := m.inode(); meant.Inode != 0 && meant != key && meant != key.Unborn() {
		return // another one by now
	}
	held := w.holds.update(key, func(h *guardHold) {
		if h.Belongs == "" {
			h.Path, h.Role, h.Format, h.Target, h.Backing, h.Belongs = m.Path, m.Role, m.Format, m.Target, m.Backing, m.Belongs
		}
		for _, o := range m.Owners {
			h.addOwner(o)
		}
	})
	if held {
		return
	}
	if w.tally.all >= w.tally.total() {
		w.unheld.addFull(m.Path)
		return
	}
	if !w.holdable.mayHold(dir) {
		w.refused = true
		return
	}
	w.hold(dir, name, m, &key)
}

// hold opens and holds a file: the one that is meant, if that is known.
func (w *treeHolding) hold(dir *beneath.Dir, name string, m holdMemory, meant *recover.Inode) {
	file, err := openTreeFile(dir, name)
	if err != nil {
		if !vanished(err) {
			w.unheld.add(m.Path, fmt.Errorf("%s can't be held: %w", m.Path, err))
		}
		return
	}
	if meant != nil {
		if st, err := identity.OfFile(file); err != nil || st.Inode() != *meant {
			file.Close() // another one by now
			return
		}
	}
	if err := w.holds.add(file, m); err != nil {
		w.problems.set("shelf", err)
	}
	w.tally.add(m)
	w.held++
}

// mostFaults is how many files are named that can't be held.
const mostFaults = 10

// faults are the errors of files, by path; of many, the first and how many more.
type faults map[string]error

func (f faults) add(path string, err error) {
	if len(f) < mostFaults {
		f[path] = err
		return
	}
	const more = "" // the subject of all others
	var others *otherFaults
	if !errors.As(f[more], &others) {
		others = &otherFaults{}
		f[more] = others
	}
	others.n++
}

// addFull adds a file for which there is no descriptor left.
func (f faults) addFull(path string) {
	f.add(path, fmt.Errorf("%s can't be held: as many files are held as this process may have open", path))
}

// otherFaults are errors that are only counted.
type otherFaults struct{ n int }

func (o *otherFaults) Error() string { return fmt.Sprintf("%d more files can't be held", o.n) }
