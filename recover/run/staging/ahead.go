package staging

import (
	"context"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/journal"
)

// CopyAhead copies the guest's disks while it still runs: what it writes meanwhile is all
// that has to be copied under the suspend. Such a copy proves nothing. Where the
// file system clones it is no use, and nothing is copied. recover.ErrNoSpace.
func (s *Set) CopyAhead(ctx context.Context) error {
	for _, f := range s.t.Written() {
		if f.Content != "" || f.Role == recover.RoleConsoleLog {
			continue
		}
		if _, err := s.t.Run.Root.Lstat(f.Path); err == nil {
			continue // perhaps it is kept
		}
		dir, err := s.dirs.ForFile(s.t.Run.Plan.Run, f, s.t.Run.Owners)
		if err != nil {
			return err
		}
		cloned, err := dir.copiesByClone(s.t.Run.Settings.Root, f)
		if err != nil {
			return err
		}
		if cloned {
			continue
		}
		if err := s.copyOneAhead(ctx, f, dir); err != nil {
			return err
		}
	}
	return s.roomForRest(ctx)
}

func (s *Set) copyOneAhead(ctx context.Context, f recover.FilePlan, dir *Directory) error {
	name, err := StageName(s.t.Plan.UUID, f)
	if err != nil {
		return err
	}
	staged := &stagedFile{want: f, dir: dir, name: name}
	s.begun = append(s.begun, staged)
	rec := journal.Staged{Dir: dir.Path(), Name: name, Source: f.Key()}
	return s.t.StepData(ctx, journal.StepAhead, f.Path, rec, func() (any, error) {
		src, err := s.t.Run.Source(ctx, f)
		if err != nil {
			return nil, CopyError(f, err)
		}
		if staged.file, err = dir.Create(name); err != nil {
			return nil, CopyError(f, err)
		}
		show := s.t.Run.Progress.File(s.t.Subject(), f.Path, journal.StepCopy, f.Allocated)
		defer show.Done()
		watched, stop := Watch(ctx, func() error { return dir.RoomLeft(s.t.Run.Settings.Headroom, f.Path) })
		defer stop()
		staged.sums, rec.Bytes, err = copier.Ahead(watched, staged.file, src, show.Add)
		if cause := context.Cause(watched); err != nil && cause != nil {
			err = cause
		}
		if err != nil {
			return nil, CopyError(f, err)
		}
		s.t.AddBytes(rec.Bytes)
		return rec, dir.Sync()
	})
}

// roomForRest looks, right before the suspend, whether what the guest's disks
// have grown by since they were copied still fits.
func (s *Set) roomForRest(ctx context.Context) error {
	rest := map[*Directory]int64{}
	for _, staged := range s.begun {
		src, err := s.t.Run.Source(ctx, staged.want)
		if err != nil {
			return err
		}
		now, err := src.Allocated()
		if err != nil {
			return err
		}
		have, err := copier.Source{File: staged.file}.Allocated()
		if err != nil {
			return err
		}
		rest[staged.dir] += max(0, now-have)
	}
	for dir, need := range rest {
		if err := dir.roomFor(need, s.t.Run.Settings.Headroom); err != nil {
			return err
		}
	}
	return nil
}
