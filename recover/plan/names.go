package plan

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
)

// names finds out which names can't be made.
type names struct {
	root          *beneath.Root
	instancesPath string
	replace       bool // what stands at a path is moved aside
}

// obstacle says why a plan's files could not get their names, or its directories their
// owners, as things are: an attribute (chattr +i, +a), a read-only mount, a server that
// squashes root, a name that is too long, no inode left. os-rescue lifts none of it. Empty
// when nothing is known against it.
func (n names) obstacle(todo recover.InstancePlan) string {
	for _, check := range []func(recover.InstancePlan) error{n.filesFit, n.relinksFit, n.directoriesFit} {
		if err := check(todo); err != nil {
			return err.Error()
		}
	}
	return ""
}

// filesFit looks where files are published, and where they are staged before.
func (n names) filesFit(todo recover.InstancePlan) error {
	for _, f := range todo.Files {
		err := n.root.CanName(f.Path, beneath.ChangeNames)
		if err == nil && recover.IsBelow(f.Path, n.instancesPath) {
			err = n.root.CanName(filepath.Join(n.instancesPath, recover.StagePrefix), beneath.ChangeNames)
		}
		if err == nil && f.Role == recover.RoleBacking {
			err = n.root.CanName(filepath.Join(n.instancesPath, "locks", "nova-"+filepath.Base(f.Path)), beneath.ChangeAddNames)
		}
		if err == nil && f.Occupied {
			err = n.canGiveWay(f.Path)
		}
		if err != nil {
			return fmt.Errorf("%s could not be put back: %w", f.Path, err)
		}
	}
	return nil
}

// someRun is as long as the name of any run (statedir.Dir.NewRun).
const someRun = "20060102-150405000-0000"

// canGiveWay looks at the file that stands at a path: it gets the owner that belongs to
// it, or is moved aside.
func (n names) canGiveWay(path string) error {
	if n.replace {
		aside := recover.AsideName(filepath.Base(path), someRun)
		if err := n.root.CanName(filepath.Join(filepath.Dir(path), aside), beneath.ChangeNames); err != nil {
			return err
		}
	}
	return n.canChange(path, n.replace)
}

// canChange looks whether a file can get another owner, and if it is to move, another name.
func (n names) canChange(path string, moves bool) error {
	dir, err := n.root.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := dir.Open(filepath.Base(path), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	if mounted, err := beneath.HasMounted(dir, f); moves && (mounted || err != nil) {
		return cmp.Or(err, fmt.Errorf("%s is a mount point, which can't be renamed: umount it, then scan again", path))
	}
	return beneath.Permits(f, path, beneath.ChangeItself)
}

// relinksFit looks where files get their names back, and whether they can have them.
func (n names) relinksFit(todo recover.InstancePlan) error {
	for _, r := range todo.Relinks {
		err := n.root.CanName(r.Path, beneath.ChangeAddNames)
		if err == nil && r.Remedy == recover.RemedyMoveBack {
			if err = n.root.CanName(r.Found, beneath.ChangeNames); err == nil {
				err = n.canChange(r.Found, true)
			}
		}
		if err != nil {
			return fmt.Errorf("%s could not get its name back: %w", r.Path, err)
		}
	}
	return nil
}

// canLink looks whether a file that is open can get one more name.
func canLink(f recover.File, src *os.File) error {
	err := beneath.Permits(src, f.Path, beneath.ChangeItself)
	if err != nil {
		err = fmt.Errorf("%s could not get its name back: %w", f.Path, err)
	}
	return err
}

// directoriesFit looks at the directories that get an owner.
func (n names) directoriesFit(todo recover.InstancePlan) error {
	for _, d := range todo.Directories {
		dir, err := n.root.OpenDir(d.Path)
		if err != nil {
			return err
		}
		err = dir.Permits(beneath.ChangeItself)
		dir.Close()
		if err != nil {
			return fmt.Errorf("%s could not get its owner and mode: %w", d.Path, err)
		}
	}
	return nil
}
