package staging

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// MendDirectories is OwnDirectories for a task that publishes files: it is called when nothing
// can make the task refuse any more. A directory that can't be changed keeps no file from its
// path, and is noted.
func MendDirectories(ctx context.Context, t *task.Task) {
	if err := OwnDirectories(ctx, t); err != nil {
		t.Notef("%v", err)
	}
}

// OwnDirectories gives the directories of a task's files the owners and modes that the
// table says, where they have others: somebody has made them by hand, or a run that was
// killed. It is not undone: nobody is better off with a directory that Nova can't write in. The
// error joins those of all directories that could not be changed.
func OwnDirectories(ctx context.Context, t *task.Task) error {
	if t.Run.Owners == nil {
		return nil
	}
	var files []string
	for _, f := range t.Plan.Files {
		files = append(files, f.Path)
	}
	for _, d := range t.Plan.Directories {
		files = append(files, d.Path+"/file")
	}
	dirs := t.Run.Owners.Covered(files)
	slices.Sort(dirs)
	var errs error
	for _, path := range dirs {
		err := t.Run.Owners.Mend(t.Run.Root, path, func(now recover.Directory, set func() error) error {
			err := t.StepData(ctx, journal.StepOwn, path, now, func() (any, error) { return nil, set() })
			if err == nil {
				t.Notef("%s was %d:%d %04o, and is %s now", path, now.UID, now.GID, uint32(now.Mode), now.Want)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = errors.Join(errs, fmt.Errorf("give %s its owner and mode: %w", path, err))
		}
	}
	return errs
}
