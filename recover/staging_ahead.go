package recover

import (
	"context"

	"github.com/os-rescue/os-rescue/recover/copier"
)

// copyAhead copies the guest's disks while it still runs: under the suspend only
// what it has written meanwhile has to be copied then. What is made here proves
// nothing. It is no use where the file system clones. ErrNoSpace.
func (s *set) copyAhead(ctx context.Context) error {
	for _, f := range s.t.written() {
		if f.Content != "" || f.Role == RoleConsoleLog {
			continue
		}
		if _, err := s.t.run.root.Lstat(f.Path); err == nil {
			continue // perhaps it is kept
		}
		dir, err := s.dirs.forFile(s.t.run.plan.Run, f, s.t.run.owners)
		if err != nil {
			return err
		}
		cloned, err := dir.copiesByClone(s.t.run.settings.Root, f)
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

func (s *set) copyOneAhead(ctx context.Context, f FilePlan, dir *directory) error {
	name, err := stageName(s.t.plan.UUID, f)
	if err != nil {
		return err
	}
	staged := &stagedFile{want: f, dir: dir, name: name}
	s.begun = append(s.begun, staged)
	rec := stagedRecord{Dir: dir.Path(), Name: name, Source: f.Key()}
	return s.t.stepData(ctx, stepAhead, f.Path, rec, func() (any, error) {
		src, err := s.t.run.source(ctx, f)
		if err != nil {
			return nil, copyError(f, err)
		}
		if staged.file, err = dir.Create(name); err != nil {
			return nil, copyError(f, err)
		}
		show := s.t.run.progress.File(s.t.subject(), f.Path, stepCopy, f.Allocated)
		defer show.Done()
		watched, stop := watchRoom(ctx, func() error { return dir.roomLeft(s.t.run.settings.Headroom, f.Path) })
		defer stop()
		staged.draft, rec.Bytes, err = copier.Ahead(watched, staged.file, src, show.Add)
		if cause := context.Cause(watched); err != nil && cause != nil {
			err = cause
		}
		if err != nil {
			return nil, copyError(f, err)
		}
		s.t.addBytes(rec.Bytes)
		return rec, dir.Sync()
	})
}

// roomForRest looks, right before the suspend, whether what the guest's disks
// have grown by since they were copied still fits.
func (s *set) roomForRest(ctx context.Context) error {
	rest := map[*directory]int64{}
	for _, staged := range s.begun {
		src, err := s.t.run.source(ctx, staged.want)
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
		if err := dir.roomFor(need, s.t.run.settings.Headroom); err != nil {
			return err
		}
	}
	return nil
}
