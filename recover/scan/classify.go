package scan

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// candidate is a held file that may belong to an instance.
type candidate struct {
	procfs.HeldFile
	// pinPath is the path that the definition gives a file of the keeper or the guard;
	// the descriptor's own link may differ from it. Empty for other holders.
	pinPath string
	// needed is true for a file that the guard holds because an instance lost it.
	needed bool
}

// candidates turns the files of a process that pins nothing into candidates.
func candidates(held []procfs.HeldFile) []candidate {
	list := make([]candidate, len(held))
	for n, h := range held {
		list[n].HeldFile = h
	}
	return list
}

// lookup is the part of a file system tree that classify needs, as a procfs.Root has it.
type lookup interface {
	Stat(path string) (unix.Stat_t, error)
	Ancestor(path string) (string, unix.Stat_t, error)
}

// classify finds the state of one expected file from what exists at its path and
// from the held files. It fills in every field of f that depends on them.
//
// others are the paths of the instance's files. tree is what QEMU sees; home is the
// tree in which files are published: the same, unless QEMU runs in another mount
// namespace.
func classify(f *recover.File, held []candidate, tree, home lookup, others map[string]bool) error {
	at, err := tree.Stat(f.Path)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	here := recover.Inode{Device: at.Dev, Inode: at.Ino}

	if exists {
		for _, h := range held {
			if h.Inode() == here {
				addHolder(f, h)
			}
		}
		if len(f.Holders) > 0 && !usurped(f, held, here) {
			f.State = recover.FilePresent
			return nil
		}
		f.Holders = f.Holders[:0]
	}
	for _, h := range nameless(f, held, exists, tree, others) {
		if len(f.Holders) > 0 && h.Inode() != (recover.Inode{Device: f.Device, Inode: f.Inode}) {
			f.State = recover.FileDisplaced
			f.Reason = "several deleted files of this name are held, and os-rescue can't tell which one is the instance's"
			return nil
		}
		addHolder(f, h)
	}
	if len(f.Holders) > 0 {
		f.State = recover.FileDeleted
		if exists {
			f.State = recover.FileReplaced
			f.Reason = fmt.Sprintf("another file (inode %d) stands at its path", at.Ino)
		}
		return checkPlace(f, tree, home)
	}
	if h, reason, ok := displaced(f, held, at, exists, tree, others); ok {
		addHolder(f, h)
		f.State, f.Reason = recover.FileDisplaced, reason
		return nil
	}
	f.State = recover.FileMissing
	if exists {
		f.State = recover.FilePresent
		measure(f, at)
	}
	return nil
}

// usurped is true when only the guard has the file at the path open, and the guard
// also holds an earlier file of that path, which was deleted while its instance
// needed it.
func usurped(f *recover.File, held []candidate, here recover.Inode) bool {
	old := false
	for _, h := range held {
		if h.pinPath == "" && h.Inode() == here {
			return false
		}
		old = old || h.needed && h.pinPath == f.Path && h.Unlinked()
	}
	return old
}

// addHolder records one more holder of the file's inode.
func addHolder(f *recover.File, h candidate) {
	measure(f, h.Stat)
	f.Unlinked = h.Unlinked() || h.SillyRenamed()
	f.Holders = append(f.Holders, h.Holder())
	if h.Writable() && f.Role != recover.RoleBacking && f.Role != recover.RoleConsoleLog {
		f.Writable = true
	}
}

// measure takes a file's identity and its sizes from its inode. The kernel counts
// allocated space in units of 512 bytes (stat(2)).
func measure(f *recover.File, st unix.Stat_t) {
	f.Device, f.Inode = st.Dev, st.Ino
	f.Size, f.Allocated = st.Size, st.Blocks*512
}

// nameless returns the held descriptors of this file's inode, if its name is gone.
// Files that a living process of the domain holds count before those of the keeper: a pin
// may be from an earlier life of the instance.
func nameless(f *recover.File, held []candidate, exists bool, tree lookup, others map[string]bool) []candidate {
	path := f.Path
	var found, pins, silly, detached []candidate
	for _, h := range held {
		switch {
		case h.pinPath != "":
			if h.pinPath == path && (h.Unlinked() || h.SillyRenamed()) {
				pins = append(pins, h)
			}
		case h.Unlinked():
			for _, p := range procfs.PathsOf(h.Link, true) {
				// "x (deleted)" may be the name of another file of the domain.
				if p == path || p == f.Resolved {
					found = append(found, h)
					break
				}
				if others[p] {
					break
				}
				// It was opened through a mount that has been detached: its link
				// begins at that mount's root.
				if isTail(p, path) {
					detached = append(detached, h)
					break
				}
				if isTailOfAny(p, others) {
					break
				}
			}
		case isSillyRenamed(f, h):
			silly = append(silly, h)
		}
	}
	// A silly rename hides the old name. It is known only if no other file of the
	// instance is missing from that directory.
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
		if p.Inode() == found[0].Inode() {
			found = append(found, p)
		}
	}
	return found
}

// isSillyRenamed is true when h may be f under the name that an NFS client gave it
// on deletion. virtlogd holds console logs and nothing else.
func isSillyRenamed(f *recover.File, h candidate) bool {
	return h.SillyRenamed() && filepath.Dir(h.Link) == filepath.Dir(f.Path) &&
		(h.Process == Virtlogd) == (f.Role == recover.RoleConsoleLog)
}

// isTail is true when a link that begins at another root may mean that path: it is
// the end of the path, and contains at least one directory.
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

// displaced looks for a held file that still has a name, but not the right one. It
// returns that file and, for the operator, what happened and what to do.
func displaced(
	f *recover.File, held []candidate, at unix.Stat_t, exists bool, tree lookup, others map[string]bool,
) (h candidate, reason string, ok bool) {
	path := f.Path
	for _, h := range held {
		if h.Unlinked() || h.pinPath != "" {
			continue
		}
		switch stripped := strings.TrimSuffix(h.Link, procfs.DeletedSuffix); {
		case h.Link == path && exists:
			return h, fmt.Sprintf("another file (inode %d on device %d) hides it: something is mounted over it, "+
				"or QEMU runs in another mount namespace", at.Ino, at.Dev), true
		case h.Link == path:
			return h, "QEMU has it open under this path, but the path does not exist here: its file system is not mounted, " +
				"or QEMU runs in another mount namespace", true
		case stripped == path:
			return h, fmt.Sprintf("this name was deleted, but the file has another name (a hard link): "+
				"find it with `find -xdev -samefile /proc/%d/fd/%d` and link it back", h.PID, h.FD), true
		case isSillyRenamed(f, h):
			return h, "files of this directory were deleted on NFS, and os-rescue can't tell which of the .nfs files there is this one", true
		}
	}
	// The same base name in another directory: the file was moved, or unmounted lazily.
	// All console logs have the same base name, and virtlogd holds those of every instance.
	if f.Role == recover.RoleConsoleLog {
		return candidate{}, "", false
	}
	var match []candidate
	for _, h := range held {
		if !h.Unlinked() && h.pinPath == "" && filepath.Base(h.Link) == filepath.Base(path) && !others[h.Link] {
			match = append(match, h)
		}
	}
	if len(match) == 0 || !sameInode(match) {
		return candidate{}, "", false
	}
	h = match[0]
	if st, err := tree.Stat(h.Link); err == nil && st.Ino == h.Stat.Ino && st.Dev == h.Stat.Dev {
		return h, "it was moved to " + h.Link + ": move it back", true
	}
	return h, "the file exists, but not here: its file system was unmounted, or is mounted only in another mount namespace " +
		"(QEMU has it open as " + h.Link + ")", true
}

// checkPlace turns a deleted file into a displaced one in two cases. Its directory is
// on another file system now: a file restored there would be hidden as soon as the
// right one is mounted again. Or QEMU means another directory by the same path.
func checkPlace(f *recover.File, tree, home lookup) error {
	dir, st, err := tree.Ancestor(f.Path)
	if err != nil {
		return err
	}
	if st.Dev != f.Device && f.Resolved != "" && f.Resolved != f.Path {
		f.State = recover.FileDisplaced
		f.Reason = "a symlink in its path leads to " + f.Resolved +
			", on another file system than the deleted file: find out who made it, and remove it"
		return nil
	}
	if st.Dev != f.Device {
		f.State = recover.FileDisplaced
		f.Reason = fmt.Sprintf("the deleted file is on device %d:%d, but %s is on %d:%d: its file system is not mounted there",
			unix.Major(f.Device), unix.Minor(f.Device), dir, unix.Major(st.Dev), unix.Minor(st.Dev))
		return nil
	}
	at, here, err := home.Ancestor(f.Path)
	if err != nil {
		return err
	}
	if here.Dev != st.Dev || here.Ino != st.Ino {
		f.State = recover.FileDisplaced
		f.Reason = fmt.Sprintf("QEMU runs in another mount namespace (a container?): its %s is not the %s of this host; "+
			"run os-rescue in that namespace", dir, at)
	}
	return nil
}

func sameInode(held []candidate) bool {
	for _, h := range held {
		if h.Inode() != held[0].Inode() {
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
