package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/novalock"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/run/staging"
)

// abandoned is one instance of a run that is ended by hand.
type abandoned struct {
	a      *Abandonment
	i      *instance
	status recover.InstanceStatus
	said   recover.AbandonedInstance
}

func newAbandoned(a *Abandonment, i *instance, status recover.InstanceStatus) *abandoned {
	plan := i.t.Plan
	return &abandoned{a: a, i: i, status: status, said: recover.AbandonedInstance{
		UUID: plan.UUID, Domain: plan.Domain, Name: plan.Name, Outcome: status.Outcome, Holdings: []recover.RunHolding{},
	}}
}

// list finds what the run holds of the instance, and says what ending it will do.
func (o *abandoned) list(ctx context.Context) error {
	if o.status.Outcome == "" {
		if undo, err := o.toUndo(ctx); err == nil && undo {
			o.note("what the run has done to its guest is undone: it goes on as it was found")
		}
		if lock, ok := o.a.s.locks[o.said.UUID]; ok && !lock.Found {
			o.note("the run's lock in Nova is undone")
		}
	}
	return o.find(ctx)
}

func (o *abandoned) note(format string, args ...any) {
	o.said.Notes = append(o.said.Notes, fmt.Sprintf(format, args...))
}

// toUndo is true when the QEMU that the run worked on lives: then all can be undone.
func (o *abandoned) toUndo(ctx context.Context) (bool, error) {
	if !o.i.t.History.Unsettled() || !o.i.guest.SameProcess() {
		return false, nil
	}
	d, err := o.i.guest.Domain(ctx)
	if errors.Is(err, recover.ErrNoDomain) {
		return false, nil
	}
	return err == nil && d.State != recover.StateShutOff, err
}

// find lists what is held of the instance.
func (o *abandoned) find(ctx context.Context) error {
	safe, err := o.elsewhere(ctx)
	if err != nil {
		return err
	}
	var found []recover.RunHolding
	holds, err := o.a.s.pins.Earlier(ctx)
	if err != nil {
		return err
	}
	for _, h := range holds {
		meta, err := pin.MetaOf(h)
		if err != nil || meta.Run != o.a.id || !slices.Contains(h.Owners, o.said.UUID) {
			continue
		}
		found = append(found, recover.RunHolding{Kind: recover.HoldingPin, Of: meta.Path, Key: h.Key, Size: h.Allocated,
			Last: isEssential(meta.Role) && !safe(meta.Path, h.Key)})
	}
	found = append(found, o.copies(safe)...)
	for _, f := range o.i.t.Plan.Files {
		aside := recover.AsideName(f.Path, o.a.id)
		if st, err := o.a.s.root.Lstat(aside); err == nil {
			found = append(found, recover.RunHolding{Kind: recover.HoldingAside, Of: f.Path, Path: aside, Size: st.Blocks * 512, Last: true})
		}
	}
	if found != nil {
		o.said.Holdings = found
	}
	return nil
}

// copies lists the staged copies and the mirrors' files that are there.
func (o *abandoned) copies(safe func(path, key string) bool) []recover.RunHolding {
	h := o.i.t.History
	if h == nil {
		return nil
	}
	staged := slices.Clone(h.Staged)
	for _, m := range h.Mirrors {
		staged = append(staged, journal.Staged{Dir: m.Dir, Name: m.Name, Source: m.Source})
	}
	var found []recover.RunHolding
	seen := map[string]bool{}
	for _, c := range staged {
		path := c.Dir + "/" + c.Name
		st, err := o.a.s.root.Lstat(path)
		if err != nil || seen[path] || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		seen[path] = true
		holding := recover.RunHolding{Kind: recover.HoldingCopy, Path: path, Key: c.Source, Size: st.Blocks * 512, Last: c.Source != ""}
		for _, f := range o.i.t.Plan.Files {
			if f.Key() == c.Source && strings.HasPrefix(c.Name, o.said.UUID+"."+filepath.Base(f.Path)+".") {
				holding.Of = f.Path
				holding.Last = isEssential(f.Role) && !safe(f.Path, c.Source)
			}
		}
		found = append(found, holding)
	}
	return found
}

// isEssential is true for a file that can't be made anew.
func isEssential(role recover.Role) bool { return role != recover.RoleDiskInfo }

// elsewhere returns what tells whether the content of a lost file, by its path and its key, is
// where no end of the run can reach it: its QEMU, or virtlogd, has the very inode open, or a
// proven copy of it has its path.
func (o *abandoned) elsewhere(ctx context.Context) (func(path, key string) bool, error) {
	open := map[string]bool{}
	now, err := o.i.guest.Look(ctx)
	if err != nil && !errors.Is(err, recover.ErrNoDomain) {
		return nil, fmt.Errorf("look at %s: %w", o.said.Domain, err)
	}
	for _, f := range slices.Concat(now.Files, now.Nameless) {
		if now.Process.PID != 0 && slices.ContainsFunc(f.Holders, func(h recover.Holder) bool {
			return h.PID == now.Process.PID || h.Process == procfs.Virtlogd
		}) {
			open[f.Identity().Key()] = true
		}
	}
	return func(path, key string) bool {
		if open[key] {
			return true
		}
		n := slices.IndexFunc(o.i.t.Plan.Files, func(f recover.FilePlan) bool { return f.Path == path && f.Key() == key })
		if n < 0 {
			return false
		}
		f := o.i.t.Plan.Files[n]
		if o.i.t.History.IsUnproven(path) {
			f.Path = recover.BeforeName(path, o.a.id)
		}
		st, err := o.a.s.root.Lstat(f.Path)
		return err == nil && o.i.t.PublishedBefore(f, st.Inode(), false) && o.i.t.IsUnwritten(f.Path, st)
	}, nil
}

// end ends the run for the instance. The error is the journal's or the keeper's; trouble
// with the guest is in what is said.
func (o *abandoned) end(ctx context.Context, choice recover.AbandonChoice) error {
	if o.status.Outcome == "" {
		if o.undo(ctx); o.said.Error != "" {
			return nil
		}
		o.unlock(ctx)
	}
	if err := o.find(ctx); err != nil {
		return err
	}
	if choice.Release {
		if err := o.release(ctx, choice.Last); err != nil {
			return err
		}
	}
	if o.status.Outcome != "" {
		return nil
	}
	return o.settle()
}

// undo leaves the guest as the run found it, if its QEMU lives; else only the directories
// are opened again. That it fails is said.
func (o *abandoned) undo(ctx context.Context) {
	t := o.i.t
	undo, err := o.toUndo(ctx)
	switch {
	case err != nil:
	case undo:
		var d recover.Domain
		if d, err = o.i.guest.Domain(ctx); err == nil {
			err = o.i.undoGuest(ctx, d)
		}
		if err == nil {
			o.note("its guest is as the run found it")
		}
	case t.History != nil:
		for _, rec := range t.History.Sealed {
			err = errors.Join(err, t.UndoNow(ctx, journal.StepUnseal, func(context.Context) error { return staging.Unseal(t, rec) }))
		}
	}
	if err != nil {
		o.said.Error = recover.InWords(err.Error())
	}
}

// unlock undoes the run's own lock in Nova. That it can't is noted.
func (o *abandoned) unlock(ctx context.Context) {
	lock, ok := o.a.s.locks[o.said.UUID]
	if !ok || lock.Found {
		return
	}
	err := o.a.signIn
	if err == nil {
		var undone novalock.Undone
		err = o.i.t.UndoNow(ctx, journal.StepUnlock, func(ctx context.Context) (err error) {
			undone, err = novalock.Unlock(ctx, o.a.s.cloud, o.said.UUID, lock.Reason)
			return err
		})
		if undone.Theirs {
			o.note("somebody else has locked it in Nova meanwhile (%s): that lock stays", undone.Reason)
		}
	}
	if err != nil {
		o.note("it is still locked in Nova (%v): openstack server unlock %s", err, o.said.UUID)
	}
}

// release lets go of what is somewhere else as well; with last, of everything but what
// was put aside.
func (o *abandoned) release(ctx context.Context, last bool) error {
	t := o.i.t
	for n := range o.said.Holdings {
		h := &o.said.Holdings[n]
		if h.Kind == recover.HoldingAside || h.Last && !last {
			continue
		}
		step, do := journal.StepUnpin, func() error { return t.Run.Pins.Release(ctx, t.Plan.UUID, h.Key) }
		if h.Kind == recover.HoldingCopy {
			step, do = journal.StepCleanup, func() error { return o.removeCopy(h.Path) }
		}
		// An interruption of the command is heard between any two of them.
		if err := t.Step(ctx, step, h.Of, do); err != nil {
			return err
		}
		h.Released = true
	}
	return nil
}

func (o *abandoned) removeCopy(path string) error {
	dir, err := o.a.s.dirs.Reopen(filepath.Dir(path))
	if err != nil {
		return err
	}
	return staging.RemoveCopy(dir, filepath.Base(path))
}

// settle journals that the run is over for the instance.
func (o *abandoned) settle() error {
	t := o.i.t
	outcome, err := recover.OutcomeSkipped, errors.New("its run was ended by hand before it began to work on it")
	if t.History.Unsettled() {
		outcome, err = recover.OutcomeFailed, fmt.Errorf("its run was ended by hand; what it had done last is %s", t.History.Last)
	}
	var kept, gone []string
	for _, h := range o.said.Holdings {
		what := "the lost " + h.Of + ", with the keeper"
		if h.Path != "" {
			what = h.Path
		}
		if h.Released {
			gone = append(gone, what)
		} else {
			kept = append(kept, what)
		}
	}
	safe := "Nothing of it is held or staged any more"
	if len(kept) > 0 {
		safe = "Kept: " + strings.Join(kept, ", ")
	}
	if len(gone) > 0 {
		safe += "; let go: " + strings.Join(gone, ", ")
	}
	for _, note := range o.said.Notes {
		t.Notef("%s", note)
	}
	report := t.End(outcome, t.Fail(err, safe, "See how it is with: os-rescue scan"))
	done := journal.Record{Instance: t.Plan.UUID, Step: journal.StepInstance, Phase: recover.PhaseDone}
	return t.Run.Log.Write(done, journal.Settlement{Report: report, Settled: true})
}
