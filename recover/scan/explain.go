package scan

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// explain says why a file is judged so, and what cures it; empty where the state says it.
func explain(f recover.File, found finding, judged verdict.Result) string {
	switch {
	case judged.State == recover.FilePresent, judged.Proven:
		return judged.Why
	case judged.State == recover.FileUnknown:
		return explainUnknown(f, found, judged)
	case found.of == nil:
		return atPlace(found)
	case found.named == verdict.Hidden:
		return hidden(found)
	case judged.Remedy == recover.RemedyMount:
		return found.why
	case judged.Remedy == recover.RemedyMoveBack:
		return fmt.Sprintf("it was renamed to %s: `mv -n %s %s`, or a run, moves it back", f.Found, quote(f.Found), quote(f.Path))
	case judged.Remedy == recover.RemedyLinkBack:
		return "its name was deleted, but it has another hard link: a run links it back"
	case found.named == verdict.Elsewhere:
		return fmt.Sprintf("it was renamed to %s, and %s", f.Found, atPlace(found))
	case found.named == verdict.OtherLink:
		return "its name was deleted, though it has another hard link, and " + atPlace(found)
	}
	return atPlace(found)
}

func explainUnknown(f recover.File, found finding, judged verdict.Result) string {
	if len(found.unsure) == 0 {
		if found.at == verdict.NoFile {
			return atPlace(found)
		}
		return judged.Why
	}
	var list []string
	for n, o := range found.unsure {
		if n == maxNamed {
			list = append(list, fmt.Sprintf("and %d more", len(found.unsure)-n))
			break
		}
		list = append(list, fmt.Sprintf("%s (--map %s=%d:%d)", o.first().Link, f.Path, o.first().PID, o.first().FD))
	}
	return "os-rescue can't tell which open file it is: " + strings.Join(list, ", ")
}

// maxNamed is how many candidates are named.
const maxNamed = 5

// atPlace says what stands at the path; empty for nothing.
func atPlace(found finding) string {
	switch found.at {
	case verdict.Stranger:
		return fmt.Sprintf("another file (inode %d) stands at its path", found.status.Ino)
	case verdict.NoFile:
		return "what stands at its path is no disk (" + kindOf(found.status) + ")"
	}
	return ""
}

func kindOf(st identity.Status) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFBLK, unix.S_IFCHR:
		return "a device"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	}
	return "a symlink"
}

// hidden says what may hide a file that has its own name.
func hidden(found finding) string {
	open := "QEMU has it open as " + found.of.first().Link
	switch {
	case found.at == verdict.Stranger || found.at == verdict.NoFile:
		return fmt.Sprintf("%s, and another file (inode %d on device %s) hides it: something is mounted over it, "+
			"or QEMU is in another mount namespace", open, found.status.Ino, device(found.status.Dev))
	case found.blocked:
		return open + "; " + found.why
	}
	return open + ", which does not exist here: its file system was unmounted, or another host renamed it " +
		fmt.Sprintf("(`find -xdev -inum %d`)", found.of.inode.Inode)
}

func otherFileSystem(f recover.File, dir string, st identity.Status) string {
	if f.Resolved != "" && f.Resolved != f.Path {
		return "a symlink in its path leads to " + f.Resolved + ", on another file system: find out who made it, and remove it"
	}
	return fmt.Sprintf("it is on device %s, but %s is on %s: its file system is not mounted there", device(f.Device), dir, device(st.Dev))
}

func otherNamespace(dir, at string) string {
	return fmt.Sprintf("QEMU is in another mount namespace (a container?): its %s is not the %s where os-rescue works; "+
		"set root in the configuration", dir, at)
}

func device(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

// quote quotes a path for a shell, if it needs that.
func quote(path string) string {
	if strings.ContainsAny(path, " \t\n'\"\\$&;|<>()*?[]#~`!{}") {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
