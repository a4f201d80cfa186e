package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// errEndedWhileMirrored: the guest has ended in the middle, and its mirrors are
// abandoned. The task's plan is now to restore its files from what is held of them.
var errEndedWhileMirrored = errors.New("the guest ended while it was mirrored")

// switchover moves a running guest onto new files.
type switchover struct {
	t       *task
	guest   *guest
	files   *set
	mirrors *mirrors
	verify  *verification
}

// newSwitchover returns the switchover of a task's guest. dirs are the run's.
func newSwitchover(t *task, g *guest, files *set, dirs *directories) *switchover {
	m := &mirrors{t: t, guest: g, files: files, dirs: dirs}
	return &switchover{t: t, guest: g, files: files, mirrors: m, verify: &verification{t: t, files: files, mirrors: m}}
}

// carryOut brings an instance's files back while its guest runs: what the guest
// does not write is put back, every disk that it writes is mirrored, and when all
// mirrors have everything the guest is suspended for the moment in which they get
// their names and it is moved onto them. errEndedWhileMirrored.
func (s *switchover) carryOut(ctx context.Context) error {
	err := s.move(ctx)
	if err == nil {
		return nil
	}
	if !s.t.state().isCommitted() && s.guest.endedMeanwhile() {
		return s.afterEnd(ctx, err)
	}
	if s.mirrors.anyPivoting() {
		err = errors.Join(err, s.t.rollback(ctx))
		// Some of its disks may be on their new files: then it runs on as it is, and
		// a resume does the others.
		if s.mirrors.anyPivoted() {
			err = errors.Join(err, s.t.enter(eventCommit))
		}
	}
	return err
}

// afterEnd abandons the mirrors of a guest that ended by itself in the middle.
func (s *switchover) afterEnd(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	if err := s.abandonEnded(ctx); err != nil {
		return errors.Join(cause, err)
	}
	s.t.notef("the guest ended while it was mirrored: its files come from the pins")
	return fmt.Errorf("%w: %w", errEndedWhileMirrored, cause)
}

func (s *switchover) move(ctx context.Context) error {
	if err := roomForAll(s.t); err != nil {
		return err
	}
	d, err := s.guest.domain(ctx)
	if err != nil {
		return err
	}
	if err := s.guest.mayBeHandled(d); err != nil {
		return err
	}
	support, err := s.t.run.hypervisor.MirrorSupport(ctx)
	if err != nil {
		return err
	}
	if err := seal(ctx, s.t, s.t.written()); err != nil {
		return err
	}
	if err := s.files.putBack(ctx); err != nil {
		return err
	}
	if err := s.guest.saveDefinition(ctx); err != nil {
		return err
	}
	began := time.Now()
	for _, f := range s.t.written() {
		disk, err := diskOf(d, f)
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
	s.verify.choose(support, time.Since(began))
	return s.moveOver(ctx)
}

// moveOver is the moment in which the guest is suspended.
func (s *switchover) moveOver(ctx context.Context) error {
	found, err := s.guest.hold(ctx)
	if err != nil {
		return err
	}
	if err := s.mirrors.settle(ctx); err != nil {
		return err
	}
	if err := s.verify.whileSuspended(ctx); err != nil {
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
	if exported {
		if err := s.verify.whileRunning(ctx); err != nil {
			return err
		}
	}
	if s.t.setVerified(s.verify.how); s.verify.how == VerifyStructure {
		s.t.notef("the new disks were checked as images, and not compared with the old ones")
	}
	s.t.notef("its QEMU reads the old, identical read-only files until its next start, " +
		"and what it says on its console until then is not in the new console log")
	s.noteRescueMode()
	return unpin(lasting, s.t)
}

// settleOn moves the guest onto the mirrors and makes sure that it is on them.
func (s *switchover) settleOn(ctx context.Context) error {
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
	return s.t.step(ctx, stepConfirm, "", func() error {
		held, err := heldBy(ctx, s.t.plan.Process.PID)
		if err != nil {
			return err
		}
		for _, m := range s.mirrors.all {
			if err := s.isMoved(m, held); err != nil {
				return err
			}
		}
		return nil
	})
}

// isMoved is ErrUnproven unless QEMU has the new inode open as it had the old one,
// and the chain on disk is whole.
func (s *switchover) isMoved(m *mirror, held []heldFile) error {
	on := false
	for _, h := range held {
		if h.Stat.Ino == m.want.Inode && h.Stat.Dev == m.want.Device {
			return fmt.Errorf("%w: QEMU still has the old inode of %s open", ErrUnproven, m.want.Path)
		}
		if h.inode() == m.inode && h.writable() {
			on = h.direct() == m.want.Direct
		}
	}
	if !on {
		return fmt.Errorf("%w: QEMU does not have the new %s open as it had the old one", ErrUnproven, m.want.Path)
	}
	if m.want.Format == "qcow2" {
		_, size, err := measured(m.file)
		if err != nil {
			return err
		}
		header, err := qcow2.ParseHeader(qcow2.Aligned{File: m.file}, size)
		if err != nil {
			return fmt.Errorf("%w: the header of the new %s: %w", ErrUnproven, m.want.Path, err)
		}
		if err := checkHeader(Domain{Disks: []Disk{m.disk}}, m.want.Path, header); err != nil {
			return err
		}
	}
	for _, member := range m.disk.Chain[1:] {
		if member.Source != SourceFile {
			continue
		}
		if _, err := s.t.run.root.Lstat(member.Path); err != nil {
			return fmt.Errorf("%w: the backing file %s: %w", ErrUnproven, member.Path, err)
		}
	}
	return nil
}

// leaveRunning undoes what was only for the move: the guest goes on, and its
// directory is its owner's again. found is the state that the guest was in before.
func (s *switchover) leaveRunning(ctx context.Context, found DomainState) error {
	s.t.takeUndos(stepCleanup)
	if err := s.t.enter(eventCommit); err != nil {
		return err
	}
	// The guest first: it is the last that was noted.
	err := s.t.rollback(ctx)
	if found == StatePaused && err == nil {
		s.t.notef("its owner had paused it, and it stays so")
	}
	return err
}

// noteRescueMode says how an instance leaves rescue mode whose definition from
// before is gone: Nova keeps it in a file that nobody holds
// (nova/virt/libvirt/driver.py, rescue and unrescue).
func (s *switchover) noteRescueMode() {
	plan := s.t.plan
	if plan.Server == nil || plan.Server.VMState != VMRescued {
		return
	}
	path := filepath.Join(s.t.run.settings.InstancesPath, plan.UUID, "unrescue.xml")
	if _, err := s.t.run.root.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		s.t.notef("Nova's unrescue needs %s, which nobody holds and which is gone: to leave rescue mode, "+
			"openstack server set --state active %s, then os-rescue reboot --instance %[2]s", path, plan.UUID)
	}
}

// Close closes the files of the mirrors and leaves them as they are.
func (s *switchover) Close() { s.mirrors.Close() }
