package scan

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
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
	Dangling(path string) (link, target string)
	Resolve(path string) string
	Renames(path, dir string) (bool, error)
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
	// instead returns the files that may be one that is nowhere, by path: see verdict.Facts.
	instead func(f recover.File) []string
	// inside says what speaks against the content of an essential file: of the held inode, or of
	// what stands at the path. It may be nil.
	inside func(f recover.File, found finding) (flaw, error)
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
	why     string   // why the place can't be reached, or what hides the file
	blocked bool     // the place can't be reached
	noDir   bool     // the file's directory does not exist
	instead []string // other files that may be it
	flaw    string   // what speaks against the content
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
	if of != nil && found.at != verdict.Itself && !found.isFlawed() {
		c.lookForName(f, &found)
		if err := c.lookAround(f, &found); err != nil {
			return err
		}
	}
	if of == nil && found.at == verdict.Nothing {
		found.why = c.leadsNowhere(*f)
	}
	if of == nil && (found.at == verdict.Stranger || found.isFlawed()) {
		measure(f, found.status)
	}
	if holder == verdict.Nobody && !c.active && (found.at == verdict.Nothing || found.at == verdict.NoDisk) {
		found.instead = c.instead(*f)
	}
	judged := verdict.File(verdict.Facts{
		Kind:      verdict.KindOf(f.Role),
		Active:    c.active,
		Holder:    found.holder,
		At:        found.at,
		Named:     found.named,
		Reachable: !found.blocked,
		Instead:   len(found.instead) > 0,
		Templated: f.Role == recover.RoleNVRAM,
	})
	f.State, f.Remedy, f.Proven = judged.State, judged.Remedy, judged.Proven
	f.Reason = explain(*f, found, judged)
	if f.Split && f.State != recover.FileUnknown {
		f.Reason = strings.TrimPrefix(f.Reason+"; "+found.flaw, "; ")
	}
	if f.Temporary && f.State != recover.FilePresent {
		f.Remedy, f.Reason = "", "it is a transient disk's overlay, which is thrown away when its guest ends"
	}
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
		return c.lookInside(f, found)
	}
	found.status = at
	switch {
	case found.of != nil && at.Inode() == found.of.inode:
		found.at = verdict.Itself
	case !c.trusted(f.Path) && c.tree.IsSymlink(f.Path), at.Mode&unix.S_IFMT == unix.S_IFBLK, at.Mode&unix.S_IFMT == unix.S_IFCHR:
		found.at = verdict.NoFile
	case at.Mode&unix.S_IFMT != unix.S_IFREG, c.isEmptied(*f, *found):
		found.at = verdict.NoDisk
	default:
		found.at = verdict.Stranger
	}
	if err := c.lookInside(f, found); err != nil || found.isFlawed() {
		return err
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

// isEmptied is true for an empty file in the place of one of a domain that is off, which held
// something when the domain ran: no image, and no backing file, has no bytes. What the
// guest only reads may be an empty cdrom.
func (c *classifier) isEmptied(f recover.File, found finding) bool {
	return found.of == nil && !c.active && found.status.Size == 0 && verdict.KindOf(f.Role) == verdict.Essential &&
		(f.Writable || f.Role != recover.RoleDisk)
}

// lookInside finds out whether what the next start would open can be the image that it should
// be. Where another inode is held that decides.
func (c *classifier) lookInside(f *recover.File, found *finding) error {
	if c.inside == nil || verdict.KindOf(f.Role) != verdict.Essential {
		return nil
	}
	what, err := c.inside(*f, *found)
	f.Split, found.flaw = what.at == verdict.Split, what.why
	if what.at != "" && found.starts() {
		found.at = what.at
	}
	return err
}

// starts is true when the next start opens what stands at the path.
func (f finding) starts() bool {
	return f.at == verdict.Itself || f.at == verdict.Stranger && f.holder == verdict.Nobody
}

// isFlawed is true when the content of what stands at the path speaks against it.
func (f finding) isFlawed() bool {
	return f.at == verdict.NoImage || f.at == verdict.Split || f.at == verdict.Overwritten
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
// same file system, seen by QEMU; and if that has another name, on the mount of that.
func (c *classifier) lookAround(f *recover.File, found *finding) error {
	dir, st, err := c.tree.Ancestor(f.Path)
	if err != nil {
		return err
	}
	found.noDir = dir != filepath.Dir(f.Path)
	if why := c.leadsNowhere(*f); why != "" {
		found.blocked, found.why = true, why
		return nil
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
		return nil
	}
	if found.named != verdict.Elsewhere {
		return nil
	}
	renames, err := c.home.Renames(f.Found, at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // only its QEMU sees that name
	}
	if err == nil && !renames {
		found.blocked, found.why = true, otherMount(*f, at)
	}
	return err
}

// leadsNowhere says which symlink in a file's path leads nowhere, and what mends that; empty
// for none.
func (c *classifier) leadsNowhere(f recover.File) string {
	link, target := c.tree.Dangling(f.Path)
	if link == "" {
		return ""
	}
	why := fmt.Sprintf("the symlink %s in its path leads to %s, where nothing is: ", quote(link), quote(target))
	if dir, ok := strings.CutSuffix(f.Found, strings.TrimPrefix(f.Path, link)); ok && f.Found != "" {
		return why + fmt.Sprintf("`ln -sfnT %s %s` leads it to the file again", quote(dir), quote(link))
	}
	return why + "bring back what it leads to (a mount, a directory), or correct it"
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
// keeper, the guard or a process that the operator named. A deleted one counts against
// whatever stands at the path, unless the instance was defined anew since, and has another
// file there: it was rebuilt, say. A console log is another one after each start.
func heldOff(f recover.File, held []candidate, here recover.Inode, exists bool) (of *openFile, unsure []*openFile) {
	var mine []candidate
	for _, h := range held {
		isNamed := slices.ContainsFunc(procfs.PathsOf(h.Link, h.Unlinked()), func(p string) bool { return p == f.Path || p == f.Resolved })
		if h.pinPath == f.Path || h.pinPath == "" && isNamed {
			mine = append(mine, h)
		}
	}
	if len(mine) == 0 {
		// Renamed since, or renamed and deleted: then what stands at the path is another file.
		mine = slices.DeleteFunc(slices.Clone(held), func(h candidate) bool {
			return h.belongs != f.Path || h.retired || h.isOfNova() || exists && !h.gone()
		})
	}
	files := openFiles(mine)
	pick := func(wanted func(*openFile) bool) []*openFile {
		return slices.DeleteFunc(slices.Clone(files), func(o *openFile) bool { return !wanted(o) })
	}
	gone := pick(func(o *openFile) bool { return o.first().gone() })
	if needed := pick(func(o *openFile) bool { return o.first().gone() && o.isNeeded() }); len(needed) > 0 {
		gone = needed
	} else if exists {
		there := pick(func(o *openFile) bool { return o.inode == here })
		gone = pick(func(o *openFile) bool { return o.first().gone() && !o.isRetired() })
		if len(gone) == 0 && (f.Writable || f.Role == recover.RoleBacking) {
			gone = lastOpened(f, held, here)
		}
		if len(there) > 0 && (len(gone) == 0 || f.Role == recover.RoleConsoleLog) {
			return there[0], nil
		}
	}
	if len(gone) == 0 && !exists {
		gone = files // they have a name, but not this one
	}
	if opened := slices.DeleteFunc(slices.Clone(gone), func(o *openFile) bool { return !o.wasOpened() }); len(opened) > 0 {
		gone = opened // the others came to its path while it was off
	}
	switch len(gone) {
	case 0:
		return nil, nil
	case 1:
		return gone[0], nil
	}
	return nil, gone
}

// lastOpened returns the files that a guard has seen the instance's QEMU have open as that disk or
// base, where none of them stands at the path now: somebody has renamed them, or mounted something over
// them, and the guest has not run since on what is there.
func lastOpened(f recover.File, held []candidate, here recover.Inode) []*openFile {
	var files []candidate
	for _, h := range held {
		if !h.opened || h.gone() || h.retired || h.isOfNova() || h.pinPath != f.Path && h.belongs != f.Path {
			continue
		}
		sameNumber := h.Stat.IsAnonymous() && h.Stat.Ino == here.Inode && h.Stat.Birth == here.Birth // mounted anew
		if h.Inode() == here || sameNumber {
			return nil
		}
		if !recover.IsKept(h.Link) {
			files = append(files, h)
		}
	}
	return openFiles(files)
}

// isRetired is true for a deleted file whose instance was defined anew since.
func (o *openFile) isRetired() bool {
	return slices.ContainsFunc(o.fds, func(c candidate) bool { return c.retired })
}

// wasOpened is false for a file that a guard holds and has seen no QEMU have open.
func (o *openFile) wasOpened() bool {
	return slices.ContainsFunc(o.fds, func(c candidate) bool { return c.opened || c.pinPath == "" })
}

// isNeeded is true for a file that the guard holds because an instance lost it.
func (o *openFile) isNeeded() bool {
	return slices.ContainsFunc(o.fds, func(c candidate) bool { return c.needed })
}
