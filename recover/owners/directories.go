package owners

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
)

// Covered returns the directories of files that the table says something about, each once:
// the instances directory, every directory from there down to a file, and that of Nova's
// locks for a file in the image cache. Of files elsewhere there are none.
func (o *Table) Covered(files []string) []string {
	base := o.settings.InstancesPath
	var dirs []string
	add := func(dir string) {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, file := range files {
		rest, below := strings.CutPrefix(filepath.Dir(file), base)
		if !below || rest != "" && rest[0] != '/' {
			continue
		}
		add(base)
		at := base
		for name := range strings.SplitSeq(strings.TrimPrefix(rest, "/"), "/") {
			if name != "" {
				at += "/" + name
				add(at)
			}
		}
		if rest == "/_base" {
			add(base + "/locks")
		}
	}
	return dirs
}

// Astray returns those of the directories, which are some of Covered's, that are there and
// not as the table says: of another user or group, or without some of the table's permission
// bits. More bits than the table's are nobody's mistake. A directory that can't be opened, or
// that is reached through a symlink below the instances directory, is left out.
func (o *Table) Astray(root *beneath.Root, dirs []string) []recover.Directory {
	var astray []recover.Directory
	for _, path := range dirs {
		dir, err := o.open(root, path)
		if err != nil {
			continue
		}
		if now, ok, err := o.compare(dir, path); err == nil && !ok {
			astray = append(astray, now)
		}
		dir.Close()
	}
	return astray
}

// Mend has a directory, one of Covered's, changed if it is not as the table says. change is
// called with how the directory is, and with a function that gives it the table's owner and
// mode, with the set-group-ID and sticky bits that it has; its error is Mend's.
// Others: fs.ErrNotExist, and beneath.ErrSymlink when the directory is reached through a symlink below the instances directory.
func (o *Table) Mend(root *beneath.Root, path string, change func(now recover.Directory, set func() error) error) error {
	dir, err := o.open(root, path)
	if err != nil {
		return err
	}
	defer dir.Close()
	now, ok, err := o.compare(dir, path)
	if err != nil || ok {
		return err
	}
	return change(now, func() error {
		st, err := dir.Info()
		if err != nil {
			return err
		}
		owner := o.Dir(path)
		owner.Mode |= beneath.OwnerOf(st.Stat_t).Mode & (fs.ModeSetgid | fs.ModeSticky)
		if err := dir.SetOwner(owner); err != nil {
			return err
		}
		return dir.Sync()
	})
}

// compare says how an open directory is; ok is true when that is as the table says.
func (o *Table) compare(dir *beneath.Dir, path string) (now recover.Directory, ok bool, err error) {
	st, err := dir.Info()
	if err != nil {
		return now, false, err
	}
	now = recover.Directory{
		Path: path,
		UID:  st.Uid,
		GID:  st.Gid,
		Mode: recover.FileMode(st.Mode & 0o777),
		Want: o.rule(path).String(),
	}
	want := o.Dir(path)
	return now, now.UID == want.UID && now.GID == want.GID && want.Mode.Perm()&^fs.FileMode(now.Mode) == 0, nil
}

// open opens the instances directory, or one below it: there no symlink is followed, not
// even root's, because it may lead to a directory that the table says nothing about.
func (o *Table) open(root *beneath.Root, path string) (*beneath.Dir, error) {
	base := o.settings.InstancesPath
	dir, err := root.OpenDir(base)
	if err != nil || path == base {
		return dir, err
	}
	for name := range strings.SplitSeq(strings.TrimPrefix(path, base+"/"), "/") {
		sub, err := dir.Subdir(name)
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = sub
	}
	return dir, nil
}
