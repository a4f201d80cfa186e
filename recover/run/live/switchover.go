package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
	"github.com/os-rescue/os-rescue/recover/run/guest"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/run/task"
	"github.com/os-rescue/os-rescue/recover/scan"
)

// ErrEnded: the guest has ended in the middle, and its mirrors are abandoned. The task's
// plan is now to restore its files from what is held of them.
var ErrEnded = errors.New("the guest ended while it was mirrored")

// ErrNotVerified: the guest runs on new disks that were neither compared with the old ones nor
// can be checked as images, so the old ones stay held.
var ErrNotVerified = errors.New("not verified: it was moved onto disks that were not compared with the old ones, " +
	"and of which qemu-img can check nothing")

// Switchover moves a running guest onto new files.
type Switchover struct {
	t       *task.Task
	guest   *guest.Guest
	files   *staging.Set
	mirrors *mirrors
	verify  *verification
	// kept are the paths of the disks of which this try has kept what they were before.
	kept map[string]bool
}

// New returns the switchover of a task's guest. files are the copies of what it only
// reads; dirs, in which the mirrors are made, are the run's.
func New(t *task.Task, g *guest.Guest, files *staging.Set, dirs *staging.Directories) *Switchover {
	m := &mirrors{t: t, guest: g, files: files, dirs: dirs}
	v := &verification{t: t, files: files, mirrors: m}
	return &Switchover{t: t, guest: g, files: files, mirrors: m, verify: v, kept: map[string]bool{}}
}

// CarryOut brings an instance's files back while its guest runs: what the guest does not
// write is put back, every disk that it writes is mirrored, and when all mirrors have
// everything the guest is suspended for the moment in which they get their names and it is
// moved onto them.
//
// ErrEnded when the guest has ended before it was moved, ErrNotVerified. Errors of package recover:
// ErrRefused, ErrNoSpace, ErrCorrupt, ErrUnproven (a new disk differs from the old one),
// ErrConflict, and those of the hypervisor. After an error the task's state says whether
// the guest can be left as it was found.
func (s *Switchover) CarryOut(ctx context.Context) error {
	err := s.move(ctx)
	if err == nil {
		return nil
	}
	if !s.t.State().IsCommitted() && s.guest.EndedMeanwhile() {
		return s.afterEnd(ctx, err)
	}
	if s.mirrors.anyPivoting() {
		err = errors.Join(err, s.t.Rollback(ctx))
		// Some of its disks may be on their new files: then it runs on as it is, and
		// a resume does the others.
		if s.mirrors.anyPivoted() {
			err = errors.Join(err, s.t.Enter(ctx, task.EventCommit))
		}
	}
	return err
}

// afterEnd abandons the mirrors of a guest that ended by itself in the middle.
func (s *Switchover) afterEnd(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	if err := s.AbandonEnded(ctx); err != nil {
		return errors.Join(cause, err)
	}
	s.t.Notef("the guest ended while it was mirrored: its files come from the pins")
	return fmt.Errorf("%w: %w", ErrEnded, cause)
}

func (s *Switchover) move(ctx context.Context) error {
	if err := staging.RoomForAll(s.t); err != nil {
		return err
	}
	d, err := s.guest.Domain(ctx)
	if err != nil {
		return err
	}
	if err := s.guest.MayBeHandled(d); err != nil {
		return err
	}
	support, err := s.t.Run.Hypervisor.MirrorSupport(ctx)
	if err != nil {
		return err
	}
	if err := s.files.PutBack(ctx); err != nil {
		return err
	}
	if err := s.guest.SaveDefinition(ctx); err != nil {
		return err
	}
	staging.MendDirectories(ctx, s.t) // QEMU opens the mirrors through them
	if err := staging.Seal(ctx, s.t, s.t.Written()); err != nil {
		return err
	}
	began := time.Now()
	for _, f := range s.t.Written() {
		disk, err := recover.DiskOf(d, f)
		if err != nil {
			return err
		}
		if err := s.mirrors.begin(ctx, f, disk, support); err != nil {
			return err
		}
	}
	if err := s.mirrors.awaitReady(ctx); err != nil {
		return err
	}
	if err := s.mirrors.keepAllocation(ctx); err != nil {
		return err
	}
	mirroring := time.Since(began)
	if d, err = s.guest.Domain(ctx); err != nil { // throttled since, perhaps
		return err
	}
	if err := s.verify.choose(support, cmp.Or(d.Unexportable(s.t.Written()), s.t.Plan.Unexported), mirroring); err != nil {
		return err
	}
	return s.moveOver(ctx)
}

// moveOver is the moment in which the guest is suspended.
func (s *Switchover) moveOver(ctx context.Context) error {
	found, err := s.guest.Hold(ctx)
	if err != nil {
		return err
	}
	if err := s.mirrors.settle(ctx); err != nil {
		return err
	}
	if err := s.verify.whileSuspended(ctx); err != nil {
		return err
	}
	if err := s.guest.StillRuns(ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	lasting := context.WithoutCancel(ctx)
	if err := s.settleOn(lasting); err != nil {
		return err
	}
	exported := s.verify.export(lasting)
	if err := s.leaveRunning(lasting, found); err != nil {
		return err
	}
	err = s.guest.StillRuns(lasting)
	if exported && err == nil {
		err = s.verify.whileRunning(ctx)
		// QEMU may end when what it has shown does, and not only then.
		err = errors.Join(err, s.guest.StillRuns(lasting))
	} else if exported {
		s.verify.how = recover.VerifyStructure
	}
	switch {
	case errors.Is(err, recover.ErrUnproven):
		return err // whatever became of the guest: the old disk is the truth
	case errors.Is(err, guest.ErrCrashed):
		s.t.SetVerified(s.verify.how)
		return errors.Join(err, s.t.Enter(lasting, task.EventCrash))
	case errors.Is(err, guest.ErrEnded):
		s.t.Notef("it has ended since it was moved onto its new disks: somebody wanted that, or the guest itself")
	case err != nil:
		return err
	}
	s.t.SetVerified(s.verify.how)
	if err := s.verify.notVerified(ctx); err != nil {
		return err
	}
	if s.verify.how == recover.VerifyStructure {
		s.t.Notef("%s", notCompared(s.t.Written()))
	}
	s.t.Notef("its QEMU reads the old, identical read-only files until its next start, " +
		"and what it says on its console until then is not in the new console log")
	s.noteRescueMode()
	return staging.Unpin(lasting, s.t)
}

// notCompared says what a proof by structure was, of those disks.
func notCompared(disks []recover.FilePlan) string {
	said := "the new disks were not compared with the old ones"
	var images, raw []string
	for _, f := range disks {
		if f.Format == "qcow2" {
			images = append(images, f.Path)
		} else {
			raw = append(raw, f.Path)
		}
	}
	if len(images) > 0 {
		said += "; checked as images: " + strings.Join(images, ", ")
	}
	if len(raw) > 0 {
		said += "; neither checked nor compared, as --verify structure wants it: " + strings.Join(raw, ", ")
	}
	return said
}

// settleOn moves the guest onto the mirrors and makes sure that it is on them.
func (s *Switchover) settleOn(ctx context.Context) error {
	if err := s.mirrors.place(ctx); err != nil {
		return err
	}
	if err := s.mirrors.pivot(ctx); err != nil {
		return err
	}
	for _, m := range s.mirrors.all {
		if err := s.mirrors.own(ctx, m); err != nil {
			return err
		}
	}
	return s.t.Step(ctx, journal.StepConfirm, "", func() error {
		open, err := procfs.HeldBy(ctx, s.t.Plan.Process.PID)
		if err != nil {
			return err
		}
		for _, m := range s.mirrors.all {
			if err := s.isMoved(m, open); err != nil {
				return err
			}
		}
		return nil
	})
}

// isMoved returns recover.ErrUnproven unless QEMU has the new inode open as it had the old
// one, and the chain on disk is whole. open are the files that QEMU has open.
func (s *Switchover) isMoved(m *mirror, open []procfs.HeldFile) error {
	on := false
	for _, h := range open {
		if h.Inode().Is(m.want.Identity(), true) {
			return fmt.Errorf("%w: QEMU still has the old inode of %s open", recover.ErrUnproven, m.want.Path)
		}
		if h.Inode() == m.inode && h.Writable() {
			on = h.Direct() == m.want.Direct
		}
	}
	if !on {
		return fmt.Errorf("%w: QEMU does not have the new %s open as it had the old one", recover.ErrUnproven, m.want.Path)
	}
	if m.want.Format == "qcow2" {
		_, size, err := staging.Measured(m.file)
		if err != nil {
			return err
		}
		header, err := qcow2.ParseHeader(qcow2.Aligned{File: m.file}, size)
		if err != nil {
			return fmt.Errorf("%w: the header of the new %s: %w", recover.ErrUnproven, m.want.Path, err)
		}
		root, err := procfs.OpenRoot(s.t.Run.Root.String())
		if err != nil {
			return err
		}
		defer root.Close()
		if err := scan.CheckHeader(recover.Domain{Disks: []recover.Disk{m.disk}}, m.want.Path, header, root); err != nil {
			return err
		}
	}
	for _, member := range m.disk.Chain[1:] {
		if member.Source != recover.SourceFile {
			continue
		}
		if _, err := s.t.Run.Root.Lstat(member.Path); err != nil {
			return fmt.Errorf("%w: the backing file %s: %w", recover.ErrUnproven, member.Path, err)
		}
	}
	return nil
}

// leaveRunning undoes what was only for the move: the guest goes on, and its
// directory is its owner's again. found is the state that the guest was in before.
func (s *Switchover) leaveRunning(ctx context.Context, found recover.DomainState) error {
	s.t.TakeUndos(journal.StepCleanup)
	s.t.TakeUndos(journal.StepUnlink)
	if err := s.t.Enter(ctx, task.EventCommit); err != nil {
		return err
	}
	// The guest first: it is the last that was noted.
	err := s.t.Rollback(ctx)
	if found == recover.StatePaused && err == nil {
		s.t.Notef("its owner had paused it, and it stays so")
	}
	return err
}

// noteRescueMode says how an instance leaves rescue mode whose definition from
// before is gone: Nova keeps it in a file that nobody holds
// (nova/virt/libvirt/driver.py, rescue and unrescue).
func (s *Switchover) noteRescueMode() {
	plan := s.t.Plan
	if plan.Server == nil || plan.Server.VMState != recover.VMRescued {
		return
	}
	path := filepath.Join(s.t.Run.Settings.InstancesPath, plan.UUID, "unrescue.xml")
	if _, err := s.t.Run.Root.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		s.t.Notef("Nova's unrescue needs %s, which nobody holds and which is gone: to leave rescue mode, "+
			"openstack server set --state active %s, then os-rescue reboot --instance %[2]s", path, plan.UUID)
	}
}

// AfterCrash says, of a guest whose QEMU crashed after it was moved, where its disks are and
// how they were proven.
func (s *Switchover) AfterCrash(ctx context.Context) string {
	proof := "compared in full with the old ones"
	if s.verify.how == recover.VerifyStructure {
		proof = "not compared with the old ones"
	}
	var at, held []string
	for _, m := range s.mirrors.all {
		if st, err := s.t.Run.Root.Lstat(m.want.Path); err == nil && st.Inode() == m.inode {
			at = append(at, m.want.Path)
		}
		if _, err := s.t.Run.Source(context.WithoutCancel(ctx), m.want); err == nil {
			held = append(held, m.want.Path)
		}
	}
	said := fmt.Sprintf("Its new disks were %s; at their paths: %s", proof, strings.Join(at, ", "))
	if len(held) > 0 {
		said += "; the old ones, as they were before the move, are held until this host goes down: " + strings.Join(held, ", ")
	}
	return said
}

// Close closes the files of the mirrors and leaves them as they are.
func (s *Switchover) Close() { s.mirrors.close() }
