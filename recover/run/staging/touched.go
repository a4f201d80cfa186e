package staging

import (
	"context"
	"errors"
	"fmt"

	"github.com/os-rescue/os-rescue/recover/copier"
)

// noteProven notes that a copy is proven, and its state then: stillProven sees by that whether
// anybody has written to it since.
func (f *stagedFile) noteProven(ctx context.Context) (err error) {
	if !f.kept {
		f.seen, err = copier.Source{File: f.file}.Mark(ctx)
	}
	f.proven = err == nil
	return err
}

// stillProven returns nil for a copy that is what was proven: nobody has touched it since, or
// its content is the same. ErrDamaged else. Nobody but root can get at a copy; that somebody
// did shows that something is very wrong, and no guest is started on it.
func (f *stagedFile) stillProven(ctx context.Context) error {
	if f.kept || !f.seen.IsSure() {
		return nil
	}
	touched, err := copier.Source{File: f.file}.Written(f.seen)
	if err != nil || !touched {
		return err
	}
	err = copier.ErrDiffers
	if digest := f.sums.Digest(); digest != "" {
		err = copier.Verify(ctx, f.file, f.size, digest, func(int64) {})
	}
	if errors.Is(err, copier.ErrDiffers) {
		f.proven = false
		err = fmt.Errorf("%w: %s, the copy of %s, was written to after it was proven", ErrDamaged, f.place(), f.want.Path)
	}
	return err
}
