package staging

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// ErrDamaged: a copy that nobody has the source of any more is not what the interrupted run
// proved. It is kept, and no guest is started on it.
var ErrDamaged = fmt.Errorf("%w: a copy is not what was proven", recover.ErrUnproven)

// proofs looks at the copies of an interrupted run, each once.
type proofs struct {
	t     *task.Task
	dirs  *Directories
	known map[string]error // by place
}

func newProofs(t *task.Task, dirs *Directories) *proofs {
	return &proofs{t: t, dirs: dirs, known: map[string]error{}}
}

// isDamaged is true when the file of that name was looked at, and is not what was proven.
func (p *proofs) isDamaged(place string) bool { return errors.Is(p.known[place], ErrDamaged) }

// asProven reads a copy in full and returns nil when it is what the interrupted run proved;
// a clone has no digest: its size and its time tell. ErrDamaged when it is not. A journal of a
// release that noted nothing of a copy tells nothing either.
func (p *proofs) asProven(ctx context.Context, staged *stagedFile, rec journal.Staged) error {
	if rec.Size == 0 {
		return nil
	}
	place := rec.Dir + "/" + rec.Name
	if staged.kept {
		place = staged.want.Path
	}
	if known, ok := p.known[place]; ok {
		return known
	}
	err := p.verify(ctx, staged, rec)
	if errors.Is(err, copier.ErrDiffers) {
		err = fmt.Errorf("%w: %s, the copy of %s, was changed since: %w", ErrDamaged, place, staged.want.Path, err)
	}
	if err == nil || errors.Is(err, ErrDamaged) {
		p.known[place] = err
	}
	return err
}

func (p *proofs) verify(ctx context.Context, staged *stagedFile, rec journal.Staged) error {
	f := staged.want
	if rec.Digest != "" {
		show := p.t.Run.Progress.File(p.t.Subject(), f.Path, journal.StepCompare, rec.Size)
		defer show.Done()
		return p.t.Step(ctx, journal.StepCompare, f.Path, func() error {
			return copier.Verify(ctx, staged.file, rec.Size, rec.Digest, show.Add)
		})
	}
	st, err := staged.file.Stat()
	if err != nil {
		return err
	}
	_, begun := p.t.History.Published[f.Path]
	touched := begun && isCached(p.t, f) // publish gives a cached image the present as its time
	if st.Size() != rec.Size || st.ModTime().UnixNano() != rec.Modified && !touched {
		return fmt.Errorf("%w: it has %d bytes, of %s, instead of %d", copier.ErrDiffers, st.Size(), st.ModTime().UTC(), rec.Size)
	}
	return nil
}

// lookAt returns nil when a copy that the journal calls proven is there, and still what was
// proven: it is read in full.
func (p *proofs) lookAt(ctx context.Context, f recover.FilePlan, rec journal.Staged) error {
	dir, err := p.dirs.Reopen(rec.Dir)
	if err != nil {
		return err
	}
	file, err := dir.Open(rec.Name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	staged := &stagedFile{want: f, dir: dir, name: rec.Name, file: file}
	if err := staged.measure(); err != nil {
		return err
	}
	if !rec.Is(staged.inode) {
		return os.ErrNotExist
	}
	return p.asProven(context.WithoutCancel(ctx), staged, rec)
}
