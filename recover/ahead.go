package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dustin/go-humanize"

	"github.com/os-rescue/os-rescue/recover/copier"
)

// copyAhead copies the guest's disks while it still runs: under the suspend only
// what it has written meanwhile has to be copied then. What is made here proves
// nothing. It is no use for a guest that stands still, or where the file system
// clones.
func (t *task) copyAhead(ctx context.Context) error {
	if t.s.plan.Command != CommandRescue || t.prior != nil || t.ip.Found != StateRunning {
		return nil
	}
	d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
	if errors.Is(err, ErrNoDomain) || err == nil && d.State != StateRunning {
		return nil // it has ended, or was paused, since the plan
	}
	if err != nil {
		return err
	}
	for _, f := range t.written() {
		if f.Content != "" || f.Role == RoleConsoleLog {
			continue
		}
		if _, err := t.s.root.Lstat(f.Path); err == nil {
			continue // perhaps it is kept
		}
		st, err := t.s.stages.forFile(t.s.plan.Run, f, t.s.owners)
		if err != nil {
			return err
		}
		if clones, err := st.clones(t.s.e.Settings.Root, f); err != nil || clones {
			if err != nil {
				return err
			}
			continue
		}
		if err := t.copyOneAhead(ctx, f, st); err != nil {
			return err
		}
	}
	return t.roomForRest(ctx)
}

// clones is true when a staged copy of the file will be a clone of it.
func (st *stage) clones(root string, f FilePlan) (bool, error) {
	info, err := st.dir.Info()
	if err != nil || info.Dev != f.Device {
		return false, err
	}
	space, err := st.dir.Statfs()
	return err == nil && clones(filepath.Join(root, st.dir.Path()), space.Magic), err
}

func (t *task) copyOneAhead(ctx context.Context, f FilePlan, st *stage) error {
	name, err := stageName(t.ip, f)
	if err != nil {
		return err
	}
	staged := &stagedFile{plan: f, stage: st, name: name}
	t.begun = append(t.begun, staged)
	rec := stagedRecord{Dir: st.dir.Path(), Name: name, Source: f.Key()}
	return t.stepData(ctx, stepAhead, f.Path, rec, func() (any, error) {
		src, err := t.s.source(ctx, f)
		if err != nil {
			return nil, t.copyError(f, err)
		}
		if staged.file, err = st.dir.Create(name); err != nil {
			return nil, t.copyError(f, err)
		}
		show := t.s.e.Progress.File(t.subject(), f.Path, stepCopy, f.Allocated)
		defer show.Done()
		watched, stop := watchRoom(ctx, func() error { return t.roomOn(st, f.Path) })
		defer stop()
		staged.draft, rec.Bytes, err = copier.Ahead(watched, staged.file, src, show.Add)
		if cause := context.Cause(watched); err != nil && cause != nil {
			err = cause
		}
		if err != nil {
			return nil, t.copyError(f, err)
		}
		t.addBytes(rec.Bytes)
		return rec, st.dir.Sync()
	})
}

// aheadOf returns what was copied of a file ahead, by this run or by an
// interrupted one, to be finished; nil when nothing was. It may be half a copy.
func (t *task) aheadOf(f FilePlan) (*stagedFile, error) {
	if n := slices.IndexFunc(t.begun, func(b *stagedFile) bool { return b.plan.Path == f.Path }); n >= 0 {
		staged := t.begun[n]
		t.begun = slices.Delete(t.begun, n, n+1)
		return staged, nil
	}
	rec, ok := t.prior.aheadOf(f)
	if !ok {
		return nil, nil
	}
	st, err := t.s.stages.reopen(rec.Dir)
	if err == nil {
		var file *os.File
		if file, err = st.dir.Open(rec.Name, os.O_RDWR); err == nil {
			return &stagedFile{plan: f, stage: st, name: rec.Name, file: file, inherited: true}, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return nil, err
}

// finishCopy brings what was copied ahead up to what the source has now, and
// proves it.
func (t *task) finishCopy(ctx context.Context, staged *stagedFile, src copier.Source, rec *stagedRecord) error {
	show := t.s.e.Progress.File(t.subject(), staged.plan.Path, stepCompare, staged.plan.Size)
	defer show.Done()
	result, err := copier.Finish(ctx, staged.file, src, staged.draft, show.Add)
	if errors.Is(err, copier.ErrDiffers) {
		err = fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	rec.Method, rec.Bytes, rec.Proven = result.Method, result.DataBytes, result.Proven
	t.addBytes(result.DataBytes)
	return err
}

// roomForRest looks, right before the suspend, whether what the guest's disks
// have grown by since they were copied still fits.
func (t *task) roomForRest(ctx context.Context) error {
	rest := map[*stage]int64{}
	for _, staged := range t.begun {
		src, err := t.s.source(ctx, staged.plan)
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
		rest[staged.stage] += max(0, now-have)
	}
	for st, need := range rest {
		space, err := st.dir.Statfs()
		if err != nil {
			return err
		}
		if floor := t.s.e.Settings.Headroom * float64(space.Total); need > 0 && float64(int64(space.Free)-need) < floor {
			return fmt.Errorf("%w: the guest's disks have grown by %s while they were copied, and %s are free on the file system of %s, of which %s must stay free",
				ErrNoSpace, humanize.IBytes(uint64(need)), humanize.IBytes(space.Free), st.dir.Path(), humanize.IBytes(uint64(floor)))
		}
	}
	return nil
}
