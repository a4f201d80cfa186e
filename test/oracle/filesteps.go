package oracle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab"
)

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// targets returns the image files that a guest has at their paths: its disks, as they are
// defined, and its base.
func (g *guest) targets() []string {
	return slices.DeleteFunc(g.paths(), func(path string) bool { return !exists(path) })
}

// missing returns those at whose path is nothing.
func (g *guest) missing() []string {
	return slices.DeleteFunc(g.paths(), exists)
}

func (g *guest) paths() []string {
	var paths []string
	for _, d := range g.disks {
		paths = append(paths, d.path)
		if d.base != "" && !slices.Contains(paths, d.base) {
			paths = append(paths, d.base)
		}
	}
	return paths
}

// rename moves a file or a directory, and remembers it.
func rename(w *world, from, to string) (string, error) {
	if exists(to) || !exists(from) {
		return "", errImpossible
	}
	err := unix.Rename(from, to) // a mount point is busy: the operator sees that too
	if err == nil {
		w.aside = append(w.aside, move{from, to})
	}
	return fmt.Sprintf("mv %s %s", from, to), err
}

func doMoveFile(_ context.Context, w *world, g *guest, p pick) (string, error) {
	files := g.targets()
	if len(files) == 0 {
		return "", errImpossible
	}
	from := files[p.of(len(files))]
	to := from + ".bak"
	if p.of(4) == 0 { // to another directory
		to = filepath.Join(lab.NovaDir, "moved-"+filepath.Base(from))
	}
	return rename(w, from, to)
}

func doMoveDir(_ context.Context, w *world, g *guest, _ pick) (string, error) {
	return rename(w, g.dir, g.dir+".old")
}

func doMoveTree(_ context.Context, w *world, _ *guest, p pick) (string, error) {
	text, err := rename(w, lab.InstancesDir, lab.InstancesDir+".old")
	if err == nil && p.of(2) == 0 {
		err = os.Mkdir(lab.InstancesDir, 0o755)
		text += " && mkdir " + lab.InstancesDir
		err = errors.Join(err, bare.Chown(lab.InstancesDir))
	}
	return text, err
}

func doMoveBack(_ context.Context, w *world, _ *guest, p pick) (string, error) {
	back := slices.DeleteFunc(slices.Clone(w.aside), func(m move) bool {
		entries, err := os.ReadDir(m.from)
		return !exists(m.to) || exists(m.from) && (err != nil || len(entries) > 0)
	})
	if len(back) == 0 {
		return "", errImpossible
	}
	m := back[p.of(len(back))]
	return fmt.Sprintf("mv -T %s %s", m.to, m.from), unix.Rename(m.to, m.from)
}

func doRemoveFile(_ context.Context, _ *world, g *guest, p pick) (string, error) {
	files := g.targets()
	for _, name := range []string{"disk.info", "console.log"} {
		if path := filepath.Join(g.dir, name); exists(path) {
			files = append(files, path)
		}
	}
	if len(files) == 0 {
		return "", errImpossible
	}
	path := files[p.of(len(files))]
	return "rm -rf " + path, os.RemoveAll(path)
}

func doRemoveDir(_ context.Context, _ *world, g *guest, _ pick) (string, error) {
	if !exists(g.dir) {
		return "", errImpossible
	}
	return "rm -rf " + g.dir, os.RemoveAll(g.dir)
}

func doRemoveTree(_ context.Context, _ *world, _ *guest, _ pick) (string, error) {
	if entries, err := os.ReadDir(lab.InstancesDir); err != nil || len(entries) == 0 {
		return "", errImpossible
	}
	return "rm -rf " + lab.InstancesDir + "/*", empty(lab.InstancesDir)
}

func doRemoveBase(_ context.Context, _ *world, _ *guest, _ pick) (string, error) {
	if entries, err := os.ReadDir(lab.BaseDir); err != nil || len(entries) == 0 {
		return "", errImpossible
	}
	return "rm -rf " + lab.BaseDir + "/*", empty(lab.BaseDir)
}

func doRemoveAside(_ context.Context, w *world, _ *guest, p pick) (string, error) {
	var there []string
	for _, m := range w.aside {
		if exists(m.to) {
			there = append(there, m.to)
		}
	}
	if exists(keptDir) {
		there = append(there, keptDir)
	}
	if len(there) == 0 {
		return "", errImpossible
	}
	path := there[p.of(len(there))]
	return "rm -rf " + path, os.RemoveAll(path)
}

// doBackup makes a copy that is stale as soon as the guest writes on.
func doBackup(ctx context.Context, w *world, g *guest, _ pick) (string, error) {
	if !exists(g.dir) {
		return "", errImpossible
	}
	w.backups++
	command := fmt.Sprintf("mkdir -p %[1]s && cp -a %[2]s %[1]s/%[3]s-%[4]d", oldDir, g.dir, filepath.Base(g.dir), w.backups)
	return command, w.shell(ctx, command)
}

// doRecreate puts something else where a file is missing.
func doRecreate(ctx context.Context, w *world, g *guest, p pick) (string, error) {
	paths := g.missing()
	if len(paths) == 0 {
		return "", errImpossible
	}
	path := paths[p.of(len(paths))]
	command := ""
	switch p.of(7) {
	case 0:
		command = "touch " + path
	case 1:
		command = "mkdir " + path
	case 2:
		command = fmt.Sprintf("ln -s /nowhere %s", path)
	case 3: // as it was once, of an older day
		old, _ := filepath.Glob(filepath.Join(oldDir, filepath.Base(g.dir)+"-*")) // the pattern is right
		if len(old) == 0 || filepath.Dir(path) != g.dir {
			return "", errImpossible
		}
		command = fmt.Sprintf("cp -a %s/. %s", old[len(old)-1], g.dir)
	case 4: // the same, and only this file
		old, _ := filepath.Glob(filepath.Join(oldDir, filepath.Base(g.dir)+"-*", filepath.Base(path))) // as above
		if len(old) == 0 || filepath.Dir(path) != g.dir {
			return "", errImpossible
		}
		command = fmt.Sprintf("cp -a %s %s", old[len(old)-1], path)
	default: // of the same size and kind, as a rebuild or a new download makes it
		command = freshImage(g, path)
	}
	command = fmt.Sprintf("mkdir -p %s && %s && chown -R nova:nova %s", filepath.Dir(path), command, filepath.Dir(path))
	return command, w.shell(ctx, command)
}

// doReuse puts an older copy at a disk's path, in a file with a number that a journal could
// take for proof: the file that QEMU has now has the number of an earlier one, and that one
// was copied to a file with this number. On ext4 that happens by itself sooner or later.
func doReuse(ctx context.Context, w *world, g *guest, _ pick) (string, error) {
	d := g.disk("vda")
	if d == nil || exists(d.path) || !exists(g.dir) {
		return "", errImpossible
	}
	old, _ := filepath.Glob(filepath.Join(oldDir, filepath.Base(g.dir)+"-*", filepath.Base(d.path))) // the pattern is right
	if len(old) == 0 {
		return "", errImpossible
	}
	wanted := map[uint64]bool{}
	all := append(slices.Clone(d.past), d.tops[0])
	for n := range len(all) - 1 {
		if all[n].Inode == d.tops[0].Inode {
			wanted[all[n+1].Inode] = true
		}
	}
	delete(wanted, d.tops[0].Inode)
	var pads []string
	defer func() {
		for _, pad := range pads {
			_ = os.Remove(pad)
		}
	}()
	for n := range 200 * min(1, len(wanted)) {
		pad := filepath.Join(g.dir, fmt.Sprintf("pad-%d", n))
		if err := os.WriteFile(pad, nil, 0o600); err != nil {
			return "", err
		}
		id, _, err := bare.Identify(pad)
		if err != nil {
			return "", err
		}
		if wanted[id.Inode] {
			command := fmt.Sprintf("cat %s > %s && mv %s %s && chown nova:nova %s", old[len(old)-1], pad, pad, d.path, d.path)
			return fmt.Sprintf("%s # inode %d again", command, id.Inode), w.shell(ctx, command)
		}
		pads = append(pads, pad)
	}
	return "", errImpossible
}

func freshImage(g *guest, path string) string {
	for _, d := range g.disks {
		switch {
		case path == d.base:
			return fmt.Sprintf("head -c %d /dev/urandom > %s", chunks/2*chunkSize, path)
		case path == d.path && d.format == "qcow2":
			return fmt.Sprintf("qemu-img create -q -u -f qcow2 -F raw -b %s %s %d", basePath(), path, diskSize)
		}
	}
	return fmt.Sprintf("truncate -s %d %s", diskSize, path)
}

// doCopyBack does by hand what os-rescue does: a copy of what QEMU has open, at the path
// where it belongs. It is identical until the guest writes on.
func doCopyBack(ctx context.Context, w *world, g *guest, p pick) (string, error) {
	paths := g.missing()
	if len(paths) == 0 || g.pid == 0 {
		return "", errImpossible
	}
	path := paths[p.of(len(paths))]
	open, err := openFiles(g.pid)
	if err != nil {
		return "", err
	}
	for _, f := range open {
		mine := w.bases[f.identity] && path == basePath()
		for _, d := range g.disks {
			mine = mine || d.path == path && len(d.tops) > 0 && d.tops[0] == f.identity
		}
		if mine {
			command := fmt.Sprintf("mkdir -p %[1]s && cp --sparse=always /proc/%[2]d/fd/%[3]d %[4]s && chown nova:nova %[1]s %[4]s",
				filepath.Dir(path), f.pid, f.fd, path)
			return command, w.shell(ctx, command)
		}
	}
	return "", errImpossible
}

func doHardLink(_ context.Context, w *world, g *guest, p pick) (string, error) {
	files := g.targets()
	if len(files) == 0 {
		return "", errImpossible
	}
	path := files[p.of(len(files))]
	to := filepath.Join(keptDir, fmt.Sprintf("%s-%d", filepath.Base(path), len(names(keptDir))))
	if err := os.MkdirAll(keptDir, 0o755); err != nil {
		return "", err
	}
	return fmt.Sprintf("ln %s %s", path, to), os.Link(path, to)
}

// doLinkBack gives a file that has another name its own name back.
func doLinkBack(_ context.Context, w *world, g *guest, p pick) (string, error) {
	entries, err := os.ReadDir(keptDir)
	if err != nil || len(entries) == 0 {
		return "", errImpossible
	}
	kept := filepath.Join(keptDir, entries[p.of(len(entries))].Name())
	id, _, err := bare.Identify(kept)
	if err != nil {
		return "", err
	}
	for _, d := range g.disks {
		if len(d.tops) > 0 && d.tops[0] == id && !exists(d.path) {
			err := os.MkdirAll(filepath.Dir(d.path), 0o755)
			return fmt.Sprintf("ln %s %s", kept, d.path), errors.Join(err, os.Link(kept, d.path))
		}
	}
	return "", errImpossible
}

// doMountOver hides a directory below another file system, or below a copy of itself.
func doMountOver(ctx context.Context, w *world, g *guest, p pick) (string, error) {
	dirs := []string{g.dir, lab.InstancesDir, lab.BaseDir}
	dir := dirs[p.of(len(dirs))]
	if !exists(dir) {
		return "", errImpossible
	}
	command := "mount -t tmpfs tmpfs " + dir
	if p.of(3) == 0 {
		w.backups++
		copied := filepath.Join(lab.NovaDir, fmt.Sprintf("copy-%d", w.backups))
		command = fmt.Sprintf("cp -a %[1]s %[2]s && mount --bind %[2]s %[1]s", dir, copied)
	}
	return command, w.shell(ctx, command)
}

func doUnmount(_ context.Context, _ *world, _ *guest, _ pick) (string, error) {
	dir, err := bare.LastMount(lab.NovaDir)
	if err != nil || dir == "" {
		return "", errors.Join(err, errImpossible)
	}
	return "umount -l " + dir, unix.Unmount(dir, unix.MNT_DETACH)
}

func empty(dir string) error {
	if err := ground.EmptyDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
