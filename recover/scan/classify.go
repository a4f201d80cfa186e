package scan

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// lookup is the part of a file system tree that classifying needs, as a procfs.Root has it.
type lookup interface {
	Stat(path string) (identity.Status, error)
	IsSymlink(path string) bool
	Ancestor(path string) (string, identity.Status, error)
	IsOverlay(path string) bool
	Resolve(path string) string
}

// classifier finds out where the files of one domain stand.
type classifier struct {
	tree   lookup // what QEMU sees
	home   lookup // where files are published: the same, unless QEMU is in another mount namespace
	active bool   // the domain has a QEMU
	// places are what stands at the files' paths, by path, as the matching saw them too.
	places map[string]identity.Status
	// isCopy is true when what stands at a file's path is a proven copy of its held inode.
	isCopy func(f recover.File, at identity.Status) (bool, error)
	// trusted is true for a path at which a symlink may stand: nobody but root makes any there.
	trusted func(path string) bool
}

// finding is what was found out about one file, before it is judged.
type finding struct {
	holder  verdict.Holder
	of      *openFile       // the held inode; nil when nobody holds it
	unsure  []*openFile     // the candidates, if holder is verdict.Ambiguous
	status  identity.Status // of what stands at the path
	at      verdict.Place
	named   verdict.Name
	why     string // why the place can't be reached, or what hides the file
	blocked bool   // the place can't be reached
}

// classify judges one file, which these descriptors hold: it fills in every field of f that
// depends on what stands where.
func (c *classifier) classify(f *recover.File, holder verdict.Holder, of *openFile, unsure []*openFile) error {
	found := finding{holder: holder, of: of, unsure: unsure}
	if of != nil {
		for _, h := range of.fds {
			addHolder(f, h)
		}
	}
	if err := c.lookAtPlace(f, &found); err != nil {
		return err
	}
	if of != nil && found.at != verdict.Itself {
		c.lookForName(f, &found)
		if err := c.lookAround(f, &found); err != nil {
			return err
		}
	}
	if of == nil && found.at == verdict.Stranger {
		measure(f, found.status)
	}
	judged := verdict.File(verdict.Facts{
		Kind:      verdict.KindOf(f.Role),
		Active:    c.active,
		Holder:    found.holder,
		At:        found.at,
		Named:     found.named,
		Reachable: !found.blocked,
	})
	f.State, f.Remedy, f.Proven = judged.State, judged.Remedy, judged.Proven
	f.Reason = explain(*f, found, judged)
	return nil
}

// lookAtPlace finds out what stands at the file's path.
func (c *classifier) lookAtPlace(f *recover.File, found *finding) error {
	at, exists := c.places[f.Path]
	if !exists {
		found.at = verdict.Nothing
		if c.tree.IsSymlink(f.Path) {
			found.at = verdict.NoFile
		}
		return nil
	}
	found.status = at
	switch {
	case found.of != nil && at.Inode() == found.of.inode:
		found.at = verdict.Itself
	case at.Mode&unix.S_IFMT != unix.S_IFREG, !c.trusted(f.Path) && c.tree.IsSymlink(f.Path):
		found.at = verdict.NoFile
	default:
		found.at = verdict.Stranger
	}
	// A disk that its QEMU writes has no copy that is up to date.
	if found.at == verdict.Stranger && found.of != nil && (found.holder != verdict.Own || !f.Writable) {
		isCopy, err := c.isCopy(*f, at)
		if isCopy {
			found.at = verdict.Copy
		}
		return err
	}
	return nil
}

// lookForName finds out which name the held inode has.
func (c *classifier) lookForName(f *recover.File, found *finding) {
	found.named = verdict.NoName
	for _, h := range found.of.fds {
		if h.gone() {
			return
		}
	}
	if found.of.first().isDeletedByNow() { // between the look at the descriptors and that at the paths
		f.Unlinked = true
		return
	}
	found.named = verdict.Hidden
	for _, h := range found.of.fds {
		st, err := c.tree.Stat(h.Link)
		switch stripped, cut := strings.CutSuffix(h.Link, procfs.DeletedSuffix); {
		case err == nil && st.Inode() == found.of.inode:
			found.named, f.Found = verdict.Elsewhere, h.Link
			return
		case cut && c.isOnOverlay(stripped):
			// A lower layer's file keeps its link count, and can't be linked
			// (fs/overlayfs/dir.c).
			found.named = verdict.NoName
			f.Unlinked = true
			return
		case cut:
			found.named = verdict.OtherLink
		}
	}
}

func (c *classifier) isOnOverlay(path string) bool {
	dir, _, err := c.tree.Ancestor(path)
	return err == nil && c.tree.IsOverlay(dir)
}

// lookAround finds out whether a file at the path would be where the held one was: on the
// same file system, seen by QEMU.
func (c *classifier) lookAround(f *recover.File, found *finding) error {
	dir, st, err := c.tree.Ancestor(f.Path)
	if err != nil {
		return err
	}
	if st.Dev != f.Device && !c.tree.IsOverlay(dir) {
		found.blocked, found.why = true, otherFileSystem(*f, dir, st)
		return nil
	}
	at, here, err := c.home.Ancestor(f.Path)
	if err != nil {
		return err
	}
	if here.Inode() != st.Inode() {
		found.blocked, found.why = true, otherNamespace(dir, at)
	}
	return nil
}

// addHolder records one more holder of the file's inode.
func addHolder(f *recover.File, h candidate) {
	measure(f, h.Stat)
	f.Unlinked = h.gone()
	f.Holders = append(f.Holders, h.Holder())
	if h.Writable() && f.Role != recover.RoleBacking && f.Role != recover.RoleConsoleLog {
		f.Writable = true
	}
}

// measure takes a file's identity and its sizes from its inode. The kernel counts
// allocated space in units of 512 bytes (stat(2)).
func measure(f *recover.File, st identity.Status) {
	f.Device, f.Inode, f.Birth = st.Dev, st.Ino, st.Birth
	f.Size, f.Allocated = st.Size, st.Blocks*512
}

// heldOff returns the inode that is held for a file of a domain that has no QEMU: by the
// keeper, the guard or a process that the operator named. Without one of which the instance
// was seen to be in need, what stands at the path counts.
func heldOff(f recover.File, held []candidate, here recover.Inode, exists bool) (of *openFile, unsure []*openFile) {
	var mine []candidate
	for _, h := range held {
		isNamed := slices.ContainsFunc(procfs.PathsOf(h.Link, h.Unlinked()), func(p string) bool { return p == f.Path || p == f.Resolved })
		if h.pinPath == f.Path || h.pinPath == "" && isNamed {
			mine = append(mine, h)
		}
	}
	files := openFiles(mine)
	pick := func(wanted func(*openFile) bool) []*openFile {
		return slices.DeleteFunc(slices.Clone(files), func(o *openFile) bool { return !wanted(o) })
	}
	gone := pick(func(o *openFile) bool { return o.first().gone() })
	if needed := pick(func(o *openFile) bool { return o.first().gone() && o.isNeeded() }); len(needed) > 0 {
		gone = needed
	} else if there := pick(func(o *openFile) bool { return exists && o.inode == here }); len(there) > 0 {
		return there[0], nil
	}
	if len(gone) == 0 && !exists {
		gone = files // they have a name, but not this one
	}
	switch len(gone) {
	case 0:
		return nil, nil
	case 1:
		return gone[0], nil
	}
	return nil, gone
}

// isNeeded is true for a file that the guard holds because an instance lost it.
func (o *openFile) isNeeded() bool {
	return slices.ContainsFunc(o.fds, func(c candidate) bool { return c.needed })
}
