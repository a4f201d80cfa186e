package scan

import (
	"cmp"
	"fmt"
	"path/filepath"
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
		return cmp.Or(atPlace(found), found.why, judged.Why)
	case found.named == verdict.Hidden:
		return hidden(found)
	case judged.Remedy == recover.RemedyMount:
		return found.why
	case judged.Remedy == recover.RemedyMoveBack:
		return fmt.Sprintf("it was renamed to %s: `%s`, or a run, moves it back", f.Found, moveBack(f, found))
	case judged.Remedy == recover.RemedyLinkBack:
		return "its name was deleted, but it has another hard link: a run links it back"
	case found.named == verdict.Elsewhere:
		return fmt.Sprintf("it was renamed to %s, and %s%s", f.Found, atPlace(found), exchange(f, found))
	case found.named == verdict.OtherLink:
		return "its name was deleted, though it has another hard link, and " + atPlace(found)
	}
	return atPlace(found)
}

// moveBack is the command that gives a renamed file its name back.
func moveBack(f recover.File, found finding) string {
	move := fmt.Sprintf("mv -n %s %s", quote(f.Found), quote(f.Path))
	if found.noDir {
		return fmt.Sprintf("mkdir -p %s && %s", quote(filepath.Dir(f.Path)), move)
	}
	return move
}

// exchange names the two moves that give a renamed disk its name back, as the end of a
// sentence; empty where they may be wrong: across file systems mv copies, others may need a
// file that the guest only reads, and Nova has its own reasons for what it renamed.
func exchange(f recover.File, found finding) string {
	if found.at != verdict.Stranger || found.blocked || found.status.Dev != f.Device || !f.Writable || found.of.first().isOfNova() {
		return ""
	}
	aside := f.Path + ".aside"
	return fmt.Sprintf(": if its guest is to go on with its own file, `mv -n %s %s && mv -n %s %s` (neither overwrites anything)",
		quote(f.Path), quote(aside), quote(f.Found), quote(f.Path))
}

func explainUnknown(f recover.File, found finding, judged verdict.Result) string {
	if len(found.instead) > 0 {
		there := strings.Join(found.instead, " and ")
		return fmt.Sprintf("its definition names it (%s), and nobody has it; but %s is there, and no definition names that. If that is "+
			"the disk, correct the definition (virsh edit), or have Nova start the instance; if the missing file was a snapshot's overlay, "+
			"%[2]s lacks what was written since", cmp.Or(f.Target, string(f.Role)), there)
	}
	if len(found.unsure) == 0 {
		if found.at == verdict.NoFile || found.isFlawed() {
			return atPlace(found)
		}
		return judged.Why
	}
	if found.unsure[0].first().elsewhere {
		return explainElsewhere(found.unsure)
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

// explainElsewhere names the processes that have a missing file open, or another one that
// was called so.
func explainElsewhere(files []*openFile) string {
	var list []string
	for _, o := range files {
		for _, c := range o.fds {
			list = append(list, fmt.Sprintf("%s %d as descriptor %d", c.Process, c.PID, c.FD))
		}
	}
	if len(list) > maxNamed {
		list = append(list[:maxNamed], fmt.Sprintf("and %d more", len(list)-maxNamed))
	}
	return "it is gone from its path, and a process that is not this domain's QEMU has a deleted file of that name open: " +
		strings.Join(list, ", ") + ": do not end that process; look at /proc/PID/fd/FD, and if it is this file, a run with --holder PID copies it"
}

// maxNamed is how many candidates are named.
const maxNamed = 5

// atPlace says what stands at the path; empty for nothing.
func atPlace(found finding) string {
	switch found.at {
	case verdict.Stranger:
		return fmt.Sprintf("another file (inode %d) stands at its path", found.status.Ino)
	case verdict.NoImage, verdict.Split, verdict.Overwritten:
		return found.flaw
	case verdict.NoFile, verdict.NoDisk:
		return "what stands at its path is no disk (" + kindOf(found.status) + ")"
	}
	return ""
}

func kindOf(st identity.Status) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "an empty file"
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
	if found.holder == verdict.Pin {
		open = "QEMU had it open, and it is held as " + found.of.first().Link
	}
	switch {
	case found.at == verdict.Stranger, found.at == verdict.NoFile, found.at == verdict.NoDisk:
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

// otherMount says what brings back a file that a rename can't: a directory was moved with a
// mount in it.
func otherMount(f recover.File, at string) string {
	dir, from := filepath.Dir(f.Path), filepath.Dir(f.Found)
	text := fmt.Sprintf("it is at %s, on another mount than %s: mv would copy it there, and its QEMU would go on with the old one",
		f.Found, at)
	if filepath.Base(f.Path) != filepath.Base(f.Found) {
		return text + fmt.Sprintf("; find the name that it has on the mount of %s (`find -xdev -inum %d`), and move that", at, f.Inode)
	}
	hides := ""
	if at == dir {
		hides = ", which hides what is in it"
	}
	return text + fmt.Sprintf("; `mkdir -p %[1]s && mount --bind %[2]s %[1]s` mounts its directory where it belongs%[3]s",
		quote(dir), quote(from), hides)
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
