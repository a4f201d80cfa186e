package staging

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/journal"
)

// EqualsHeld compares what is still held of each file to restore with the backup, in full.
// recover.ErrOlder when one differs: the guest has written since. An interrupted run that had
// destroyed the domain has compared them before that.
func EqualsHeld(ctx context.Context, s *Set) error {
	if s.t.DestroyDone() {
		return nil
	}
	for _, f := range s.t.Plan.Files {
		if f.Held == "" {
			continue
		}
		err := s.t.Step(ctx, journal.StepUnchanged, f.Path, func() error { return equalsHeld(ctx, s, f) })
		if err != nil {
			return err
		}
	}
	return nil
}

func equalsHeld(ctx context.Context, s *Set, f recover.FilePlan) error {
	held, err := s.t.Run.Pins.Source(ctx, f.OfHeld())
	if errors.Is(err, fs.ErrNotExist) {
		if _, ok := s.t.History.Proven(f); ok {
			return nil // the interrupted run has compared it before it copied
		}
		return fmt.Errorf("%w: what was held of %s when the run began is held by nobody any more, and was not compared with the backup",
			recover.ErrOlder, f.Path)
	}
	if err != nil {
		return err
	}
	if s.compared[f.Path], err = held.Mark(ctx); err != nil {
		return err
	}
	stored, err := s.t.Run.Source(ctx, f)
	if err != nil {
		return fmt.Errorf("the backup's %s: %w", f.Stored, err)
	}
	show := s.t.Run.Progress.File(s.t.Subject(), f.Path, journal.StepCompare, f.Size)
	defer show.Done()
	_, err = copier.Compare(ctx, held, stored.File, copier.CompareOptions{Progress: show.Add})
	var differs *copier.DiffersError
	if !errors.Is(err, copier.ErrDiffers) {
		return err
	}
	if digest, err := copier.Digest(ctx, stored.File, nil); err != nil {
		return err
	} else if digest != f.SHA256 {
		return damaged(f, digest) // that the two differ says nothing about the guest
	}
	what := "differs from it"
	if errors.As(err, &differs) {
		what = fmt.Sprintf("differs from it from byte %d on", differs.Offset)
	}
	if s.t.DestroyedBefore() {
		what += ", perhaps only in what its QEMU wrote when it ended"
	}
	return fmt.Errorf("%w: what is held of %s (%s) was last written at %s, and %s: "+
		"os-rescue --instance %s brings that back and loses nothing; --accept-older restores the backup as it is",
		recover.ErrOlder, f.Path, held.File.Name(), lastWritten(held), what, s.t.Plan.UUID)
}

func lastWritten(held copier.Source) string {
	st, err := held.File.Stat()
	if err != nil {
		return "a time that can't be seen"
	}
	return st.ModTime().Format(time.DateTime)
}

// FollowHeld takes a copy of what is held in place of the backup's, where it was written after
// it was compared: by QEMU itself in ending, or because somebody has let the guest go on at
// the last moment. The domain has ended, so nobody writes it any more. Its errors are those of
// StageWritten.
func FollowHeld(ctx context.Context, s *Set) error {
	for n, staged := range s.staged {
		f := staged.want
		if f.Held == "" || staged.published || staged.accepted {
			continue
		}
		held, err := s.t.Run.Pins.Source(ctx, f.OfHeld())
		if errors.Is(err, fs.ErrNotExist) {
			continue // an interrupted run's last look was before its end
		}
		if err != nil {
			return err
		}
		// Where it was not compared by this run its mark is zero: then it counts as written.
		written, err := held.Written(s.compared[f.Path])
		if err != nil {
			return err
		}
		if !written {
			continue
		}
		staged.want = f.OfHeld()
		err = s.sameContent(ctx, staged)
		if err == nil {
			staged.want = f
			continue
		}
		if !errors.Is(err, recover.ErrUnproven) {
			return err
		}
		if staged.kept {
			return fmt.Errorf("%w: %s stood there already with the backup's content, and what is held of it was written since: "+
				"move it away, then go on", recover.ErrConflict, f.Path)
		}
		again, err := s.newStaged(staged.want)
		if err == nil {
			err = copyAndProve(ctx, s.t, again)
		}
		if err == nil {
			err = again.noteProven(ctx)
		}
		if err != nil {
			return errors.Join(err, again.discard(ctx))
		}
		if err := staged.discard(ctx); err != nil {
			return err
		}
		s.staged[n] = again
		s.t.Notef("%s was written after it was compared with the backup, at the end of its QEMU: what it had then is restored", f.Path)
	}
	return nil
}
