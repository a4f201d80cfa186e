package owners

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
)

// ErrNotNovas: a directory is one that many share, or nothing but the word of Nova's user says that
// it is Nova's. It keeps its owner.
var ErrNotNovas = errors.New("it is not changed")

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
// mode, with the set-group-ID bit that it has; its error is Mend's.
// Others: ErrNotNovas, fs.ErrNotExist, and beneath.ErrSymlink when the directory is reached through
// a symlink below the instances directory.
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
		owner.Mode |= beneath.OwnerOf(st.Stat_t).Mode & fs.ModeSetgid
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
	if st.Mode&(unix.S_ISVTX|0o002) != 0 {
		return now, false, fmt.Errorf("%w: %s has mode %04o, as /tmp has, in which all can write: "+
			"if it is Nova's, chmod o-t,o-w %s first", ErrNotNovas, path, st.Mode&0o7777, path)
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
	if err == nil {
		if err = o.isNovas(dir); err != nil {
			dir.Close()
			return nil, err
		}
	}
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

// isNovas returns nil unless nothing but the word of Nova's user makes dir the instances directory.
func (o *Table) isNovas(dir *beneath.Dir) error {
	base := o.settings.InstancesPath
	st, err := dir.Info()
	if err == nil && o.settings.InstancesPathIsNovas && st.Uid != o.Dir(base).UID {
		err = fmt.Errorf("%w: %s belongs to the user %d, and only %s, which others than root can write, says that it is Nova's: "+
			"if it is, set instances_path in the configuration of os-rescue", ErrNotNovas, base, st.Uid, o.settings.InstancesPathFrom)
	}
	return err
}
