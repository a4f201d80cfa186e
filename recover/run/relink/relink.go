package relink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// Back gives every file of the task's plan that still has a name its right one. One that has
// it already, by a run that was killed, is left as it is. The undo of each is noted with the
// task. recover.ErrConflict when something else stands at a path, recover.ErrUnproven
// when a name is not that of the inode that QEMU has open, fs.ErrNotExist when it has none
// any more.
func Back(ctx context.Context, t *task.Task) error {
	for _, r := range t.Plan.Relinks {
		f, err := find(ctx, t, r)
		if err != nil {
			return err
		}
		if err := f.back(ctx); err != nil {
			return fmt.Errorf("bring %s back: %w", r.Path, err)
		}
	}
	return nil
}

// file is a file on its way to its right name.
type file struct {
	recover.Relink
	t    *task.Task
	held *os.File // its inode, kept open by the run's custody; nil when nobody has it any more
	// named: the right name is, or may be, of this run's making.
	named bool
}

// find gets hold of the inode of a file.
func find(ctx context.Context, t *task.Task, r recover.Relink) (*file, error) {
	f := &file{Relink: r, t: t}
	src, err := t.Run.Source(ctx, r.Held())
	if err == nil {
		f.held = src.File
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	return nil, err
}

func (f *file) back(ctx context.Context) error {
	dir, made, err := f.t.Run.Root.MkdirAll(filepath.Dir(f.Path), f.t.Run.Owners.Dir)
	if err != nil {
		return err
	}
	dir.Close()
	step := journal.StepLinkBack
	if f.Remedy == recover.RemedyMoveBack {
		step = journal.StepMoveBack
	}
	f.t.OnFailure(journal.StepUnlink, func(context.Context) error { return f.undo(made) })
	return f.t.StepData(ctx, step, f.Path, f.Relink, func() (any, error) { return nil, f.name() })
}

// name gives the file its right name.
func (f *file) name() error {
	to, err := f.t.Run.Root.OpenDir(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	defer to.Close()
	switch is, err := f.isAt(to, f.Path); {
	case is:
		return nil
	case err == nil && f.mayBe(to):
		return fmt.Errorf("%w: a file of its number stands there, and whether it is the one can't be told: nobody has that open "+
			"any more, and its file system tells no births", recover.ErrUnproven)
	case err == nil:
		return fmt.Errorf("%w: another file stands there by now: look at what it is, then move it away", recover.ErrConflict)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	f.named = true
	if f.Remedy == recover.RemedyMoveBack {
		err = f.rename(to)
	} else {
		err = f.link(to)
	}
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%w: another file has just got there: %w", recover.ErrConflict, err)
	}
	return err
}

func (f *file) link(to *beneath.Dir) error {
	if f.held == nil {
		return fmt.Errorf("nobody has it open any more, and its other name is not known: find it with "+
			"`find -xdev -inum %d`, and link it to this path: %w", f.Inode, fs.ErrNotExist)
	}
	if err := to.Link(f.held, filepath.Base(f.Path)); err != nil {
		return err
	}
	if is, err := f.isAt(to, f.Path); !is {
		return errors.Join(recover.ErrUnproven, err)
	}
	f.t.Notef("%s was linked back: it is the file that QEMU has open", f.Path)
	return nil
}

// rename moves the file back. Whoever can write its directory could have put another file
// at its name in the last moment: that one goes back there.
func (f *file) rename(to *beneath.Dir) error {
	from, err := f.t.Run.Root.OpenDir(filepath.Dir(f.Found))
	if err != nil {
		return err
	}
	defer from.Close()
	is, err := f.isAt(from, f.Found)
	if err != nil {
		return err
	}
	if !is {
		return fmt.Errorf("%w: %s is not the file that QEMU has open", recover.ErrUnproven, f.Found)
	}
	if err := beneath.Publish(from, filepath.Base(f.Found), to, filepath.Base(f.Path)); err != nil {
		return err
	}
	if is, err := f.isAt(to, f.Path); !is {
		return errors.Join(fmt.Errorf("%w: %s was replaced in the last moment", recover.ErrUnproven, f.Found), err,
			beneath.Publish(to, filepath.Base(f.Path), from, filepath.Base(f.Found)))
	}
	f.t.Notef("%s was moved back to %s: it is the file that QEMU has open", f.Found, f.Path)
	return nil
}

// isAt is true when the name at the end of path, in dir, is that of the file's inode.
// fs.ErrNotExist when there is no such name.
func (f *file) isAt(dir *beneath.Dir, path string) (bool, error) {
	name := filepath.Base(path)
	st, err := dir.Stat(name)
	if err != nil {
		return false, err
	}
	if f.held == nil {
		// Nothing but its birth tells it from a later file of its number; or the run that gave
		// it this name, and was killed later.
		own := path == f.Path && f.t.History != nil && f.t.History.Relinked[path] && f.t.Run.Pins.SameBoot()
		return st.Inode().Is(f.Held().Identity(), own), nil
	}
	held, err := identity.OfFile(f.held)
	return err == nil && st.Inode().Is(held.Inode(), true), err
}

// mayBe is true when the file with the right name, in dir, has the number of one that nobody
// has open any more, and no birth says which of the two it is.
func (f *file) mayBe(dir *beneath.Dir) bool {
	st, err := dir.Stat(filepath.Base(f.Path))
	return err == nil && f.held == nil && st.Inode().Is(f.Held().Identity(), true)
}

// undo takes the right name away again, and removes the directories that were made for it.
func (f *file) undo(made []string) error {
	to, err := f.t.Run.Root.OpenDir(filepath.Dir(f.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer to.Close()
	is, err := f.isAt(to, f.Path)
	if is && f.named {
		err = f.unname(to)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, path := range slices.Backward(made) {
		if parent, err := f.t.Run.Root.OpenDir(filepath.Dir(path)); err == nil {
			_ = parent.RemoveDir(filepath.Base(path)) // something may be in it by now
			parent.Close()
		}
	}
	return nil
}

func (f *file) unname(to *beneath.Dir) error {
	if f.Remedy == recover.RemedyMoveBack {
		from, err := f.t.Run.Root.OpenDir(filepath.Dir(f.Found))
		if err != nil {
			return err
		}
		defer from.Close()
		f.t.Notef("%s was moved to %s again", f.Path, f.Found)
		return beneath.Publish(to, filepath.Base(f.Path), from, filepath.Base(f.Found))
	}
	st, err := to.Stat(filepath.Base(f.Path))
	if err != nil {
		return err
	}
	if st.Nlink < 2 {
		f.t.Notef("%s stays where it was linked to: it has no other name any more", f.Path)
		return nil
	}
	f.t.Notef("the link at %s was removed again", f.Path)
	return errors.Join(to.Remove(filepath.Base(f.Path)), to.Sync())
}
