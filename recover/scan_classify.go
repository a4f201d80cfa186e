package recover

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// scanCandidate is a held file that may be one of an instance's.
type scanCandidate struct {
	heldFile
	// pinPath is the path of a keeper's or a guard's file as the definition has it;
	// the descriptor's own link may read otherwise. Empty for other holders.
	pinPath string
	// needed is true for a guard's file that an instance had lost.
	needed bool
}

// candidates makes candidates of what a process holds that pins nothing.
func scanCandidates(held []heldFile) []scanCandidate {
	list := make([]scanCandidate, len(held))
	for n, h := range held {
		list[n].heldFile = h
	}
	return list
}

// lookup is what classify needs of a file system tree; root is one.
type lookup interface {
	Stat(path string) (unix.Stat_t, error)
	Ancestor(path string) (string, unix.Stat_t, error)
}

// classify finds out where one expected file stands, from what lies at its path
// and what is held. It fills in everything of the file that depends on that.
//
// home is the tree in which files are published: the same as tree, unless QEMU
// lives in another mount namespace.
func classify(f *File, held []scanCandidate, tree, home lookup, others map[string]bool) error {
	at, err := tree.Stat(f.Path)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	here := inode{at.Dev, at.Ino}

	if exists {
		for _, h := range held {
			if h.inode() == here {
				addHolder(f, h)
			}
		}
		if len(f.Holders) > 0 && !usurped(f, held, here) {
			f.State = FilePresent
			return nil
		}
		f.Holders = f.Holders[:0]
	}
	for _, h := range nameless(f, held, exists, tree, others) {
		if len(f.Holders) > 0 && h.inode() != (inode{f.Device, f.Inode}) {
			f.State = FileDisplaced
			f.Reason = "several deleted files of this name are held: which is the instance's can't be told"
			return nil
		}
		addHolder(f, h)
	}
	if len(f.Holders) > 0 {
		f.State = FileDeleted
		if exists {
			f.State = FileReplaced
			f.Reason = fmt.Sprintf("another file (inode %d) stands at the path", at.Ino)
		}
		return checkPlace(f, tree, home)
	}
	if h, reason, ok := displaced(f, held, at, exists, tree, others); ok {
		addHolder(f, h)
		f.State, f.Reason = FileDisplaced, reason
		return nil
	}
	f.State = FileMissing
	if exists {
		f.State = FilePresent
		measure(f, at)
	}
	return nil
}

// usurped is true when nobody but a guard has the file at the path open, and the
// guard has another one too that was deleted there while its instance needed it.
func usurped(f *File, held []scanCandidate, here inode) bool {
	old := false
	for _, h := range held {
		if h.pinPath == "" && h.inode() == here {
			return false
		}
		old = old || h.needed && h.pinPath == f.Path && h.unlinked()
	}
	return old
}

// addHolder notes one more holder of the file's inode.
func addHolder(f *File, h scanCandidate) {
	measure(f, h.Stat)
	f.unlinked = h.unlinked() || h.sillyRenamed()
	f.Holders = append(f.Holders, h.holder())
	if h.writable() && f.Role != RoleBacking && f.Role != RoleConsoleLog {
		f.Writable = true
	}
}

func measure(f *File, st unix.Stat_t) {
	f.Device, f.Inode = st.Dev, st.Ino
	f.Size, f.Allocated = st.Size, st.Blocks*512
}

// nameless returns the held descriptors that are this file with its name gone.
// What a living process of the domain holds counts before what the keeper has: a
// pin may be of an earlier life of the instance.
func nameless(f *File, held []scanCandidate, exists bool, tree lookup, others map[string]bool) []scanCandidate {
	path := f.Path
	var found, pins, silly, detached []scanCandidate
	for _, h := range held {
		switch {
		case h.pinPath != "":
			if h.pinPath == path && (h.unlinked() || h.sillyRenamed()) {
				pins = append(pins, h)
			}
		case h.unlinked():
			for _, p := range heldPaths(h.Link, true) {
				// "x (deleted)" may be the name of another file of the domain.
				if p == path || p == f.resolved {
					found = append(found, h)
					break
				}
				if others[p] {
					break
				}
				// Opened through a mount that was detached since: its link begins
				// at that mount's root.
				if isTail(p, path) {
					detached = append(detached, h)
					break
				}
				if isTailOfAny(p, others) {
					break
				}
			}
		case h.sillyRenamed() && filepath.Dir(h.Link) == filepath.Dir(path) && (h.Process == logDaemon) == (f.Role == RoleConsoleLog):
			silly = append(silly, h)
		}
	}
	// A silly rename hides the old name: only a directory in which a single
	// file of the instance is gone tells which it was.
	if len(found) == 0 && len(silly) > 0 && !exists && sameInode(silly) && onlyGone(path, others, tree) {
		found = silly
	}
	if len(found) == 0 && len(detached) > 0 && sameInode(detached) {
		found = detached
	}
	if len(found) == 0 {
		return pins
	}
	for _, p := range pins {
		if p.inode() == found[0].inode() {
			found = append(found, p)
		}
	}
	return found
}

// isTail is true when a link that begins at another root may be that path: it is
// the path's end, with a directory at least.
func isTail(link, path string) bool {
	return strings.Count(link, "/") > 1 && strings.HasSuffix(path, link)
}

func isTailOfAny(link string, paths map[string]bool) bool {
	for p := range paths {
		if isTail(link, p) {
			return true
		}
	}
	return false
}

// displaced looks for a held file that still has a name, but not the right one.
func displaced(f *File, held []scanCandidate, at unix.Stat_t, exists bool, tree lookup, others map[string]bool) (scanCandidate, string, bool) {
	path := f.Path
	for _, h := range held {
		if h.unlinked() || h.pinPath != "" {
			continue
		}
		switch stripped := strings.TrimSuffix(h.Link, deletedSuffix); {
		case h.Link == path && exists:
			return h, fmt.Sprintf("another file (inode %d on device %d) hides it: something is mounted over it, or QEMU sees another mount namespace", at.Ino, at.Dev), true
		case h.Link == path:
			return h, "QEMU has it under this very path, which leads nowhere from here: its file system is not mounted, or QEMU sees another mount namespace", true
		case stripped == path:
			return h, "this name was deleted, but the file has another one (a hard link) that can be linked back: find it with `find -xdev -samefile /proc/" + fmt.Sprint(h.PID) + "/fd/" + fmt.Sprint(h.FD) + "`", true
		case h.sillyRenamed() && filepath.Dir(h.Link) == filepath.Dir(path) && (h.Process == logDaemon) == (f.Role == RoleConsoleLog):
			return h, "files of this directory were deleted on NFS, and which of its .nfs files this one is can't be told", true
		}
	}
	// The same base name under another directory: moved, or unmounted lazily. All
	// console logs are called alike, and virtlogd has those of every instance.
	if f.Role == RoleConsoleLog {
		return scanCandidate{}, "", false
	}
	var match []scanCandidate
	for _, h := range held {
		if !h.unlinked() && h.pinPath == "" && filepath.Base(h.Link) == filepath.Base(path) && !others[h.Link] {
			match = append(match, h)
		}
	}
	if len(match) == 0 || !sameInode(match) {
		return scanCandidate{}, "", false
	}
	h := match[0]
	if st, err := tree.Stat(h.Link); err == nil && st.Ino == h.Stat.Ino && st.Dev == h.Stat.Dev {
		return h, "it was moved to " + h.Link + ": move it back", true
	}
	return h, "the file exists, but not here: its file system was unmounted, or lies in another mount namespace (QEMU shows it as " + h.Link + ")", true
}

// checkPlace turns a deleted file into a displaced one when the place where it
// belongs is on another file system than the file (restoring it there would put
// it where nobody who mounts the right one again will find it), or is not the
// place that QEMU means by the same path.
func checkPlace(f *File, tree, home lookup) error {
	dir, st, err := tree.Ancestor(f.Path)
	if err != nil {
		return err
	}
	if st.Dev != f.Device && f.resolved != "" && f.resolved != f.Path {
		f.State = FileDisplaced
		f.Reason = "a symlink on the way leads to " + f.resolved + ", on another file system than the deleted file's: look at who made it, and remove it"
		return nil
	}
	if st.Dev != f.Device {
		f.State = FileDisplaced
		f.Reason = fmt.Sprintf("the deleted file is on device %d:%d, but %s is on %d:%d: its file system is not mounted there",
			unix.Major(f.Device), unix.Minor(f.Device), dir, unix.Major(st.Dev), unix.Minor(st.Dev))
		return nil
	}
	at, here, err := home.Ancestor(f.Path)
	if err != nil {
		return err
	}
	if here.Dev != st.Dev || here.Ino != st.Ino {
		f.State = FileDisplaced
		f.Reason = fmt.Sprintf("QEMU lives in another mount namespace (a container?): its %s is not the %s of this host; run os-rescue in that namespace", dir, at)
	}
	return nil
}

func sameInode(held []scanCandidate) bool {
	for _, h := range held {
		if h.inode() != held[0].inode() {
			return false
		}
	}
	return true
}

// onlyGone is true when no other file of the domain is missing from path's directory.
func onlyGone(path string, others map[string]bool, tree lookup) bool {
	for p := range others {
		if p == path || filepath.Dir(p) != filepath.Dir(path) {
			continue
		}
		if _, err := tree.Stat(p); err != nil {
			return false
		}
	}
	return true
}
