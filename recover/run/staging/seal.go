package staging

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// Seal closes the directories of the instance's disks to all but root, until the guest is
// on its new files: libvirt creates files in there, by path and as root, and the nova user
// could plant a symlink. The undo is noted with the task.
func Seal(ctx context.Context, t *task.Task, disks []recover.FilePlan) error {
	var dirs []string
	for _, f := range disks {
		dir := filepath.Dir(f.Path)
		if recover.IsBelow(dir, t.Run.Settings.InstancesPath) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, path := range dirs {
		if err := sealOne(ctx, t, path); err != nil {
			return err
		}
	}
	return nil
}

func sealOne(ctx context.Context, t *task.Task, path string) error {
	rec := journal.Seal{Dir: path}
	st, err := t.Run.Root.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		rec.Made = true
	case err != nil:
		return err
	default:
		rec.Was = beneath.OwnerOf(st.Stat_t)
	}
	t.OnFailure(journal.StepUnseal, func(context.Context) error { return Unseal(t, rec) })
	return t.StepData(ctx, journal.StepSeal, path, rec, func() (any, error) {
		closed := beneath.Owner{Mode: 0o755}
		dir, _, err := t.Run.Root.MkdirAll(path, func(made string) beneath.Owner {
			if made == path {
				return closed
			}
			return t.Run.Owners.Dir(made)
		})
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		return nil, dir.SetOwner(closed)
	})
}

// Unseal undoes Seal for one directory. One that the run had made is removed if nothing
// is in it.
func Unseal(t *task.Task, rec journal.Seal) error {
	parent, err := t.Run.Root.OpenDir(filepath.Dir(rec.Dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	owner := rec.Was
	if rec.Made {
		err := parent.RemoveDir(filepath.Base(rec.Dir))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		owner = t.Run.Owners.Dir(rec.Dir)
	}
	dir, err := parent.Subdir(filepath.Base(rec.Dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.SetOwner(owner)
}
