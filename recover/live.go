package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// live brings an instance's files back while its guest runs: what the guest does
// not write is put back, every disk that it writes is mirrored, and when all
// mirrors have everything the guest is suspended for the moment in which they get
// their names and it is moved onto them.
func (t *task) live(ctx context.Context) error {
	defer t.closeMoves()
	err := t.moveLive(ctx)
	if err == nil {
		return nil
	}
	if !t.committed && t.endedMeanwhile() {
		return t.rescueEnded(ctx, err)
	}
	if slices.ContainsFunc(t.moves, func(m *mirrored) bool { return m.pivoting }) {
		err = errors.Join(err, t.rollback(ctx))
		// Some of its disks may be on their new files: then it runs on as it is, and
		// a resume does the others.
		t.committed = t.committed || slices.ContainsFunc(t.moves, func(m *mirrored) bool { return m.pivoted })
	}
	return err
}

func (t *task) closeMoves() {
	for _, m := range t.moves {
		if m.file != nil {
			m.file.Close()
		}
	}
}

// rescueEnded rescues a guest that ended by itself in the middle, from the pins.
func (t *task) rescueEnded(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	if err := t.endLive(ctx); err != nil {
		return errors.Join(cause, err)
	}
	t.notef("the guest ended while it was mirrored: its files come from the pins")
	return t.rescue(ctx)
}

func (t *task) moveLive(ctx context.Context) error {
	if err := t.room(); err != nil {
		return err
	}
	d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
	if err != nil {
		return err
	}
	if reason := handsOff(d); reason != "" {
		return fmt.Errorf("%w: %s", ErrRefused, reason)
	}
	if !t.sameProcess() || d.PID != t.ip.Process.PID {
		return fmt.Errorf("%w: its QEMU is another process than the one that was scanned: run the command again", ErrRefused)
	}
	support, err := t.s.e.Hypervisor.MirrorSupport(ctx)
	if err != nil {
		return err
	}
	if err := t.seal(ctx, t.written()); err != nil {
		return err
	}
	if err := t.putBack(ctx); err != nil {
		return err
	}
	if err := t.saveXML(ctx); err != nil {
		return err
	}
	began := time.Now()
	for _, f := range t.written() {
		disk, err := diskOf(d, f)
		if err != nil {
			return err
		}
		if err := t.mirror(ctx, f, disk, support); err != nil {
			return err
		}
	}
	if err := t.awaitReady(ctx); err != nil {
		return err
	}
	t.chooseProof(support, time.Since(began))
	return t.moveOver(ctx)
}

// written are the files that the guest writes.
func (t *task) written() []FilePlan {
	return slices.DeleteFunc(slices.Clone(t.ip.Files), func(f FilePlan) bool { return !f.Writable })
}

// hold suspends a guest that runs. Its mirrors may have taken hours: its owner may
// have paused it meanwhile, or QEMU for an I/O error.
func (t *task) hold(ctx context.Context) (DomainState, error) {
	d, err := t.s.e.Hypervisor.Domain(ctx, t.ip.UUID)
	switch {
	case err != nil:
		return "", err
	case d.State == StatePaused && d.PauseReason == PauseUser:
		return d.State, nil
	case d.State != StateRunning:
		return d.State, fmt.Errorf("%w: while it was mirrored it has become %s (%s)", ErrRefused, d.State, d.PauseReason)
	}
	undos := t.undos
	if err := t.suspend(ctx); err != nil {
		return d.State, err
	}
	if t.off {
		t.undos = undos
		return d.State, errors.New("the guest has ended by itself")
	}
	return d.State, nil
}

// moveOver is the moment in which the guest is suspended.
func (t *task) moveOver(ctx context.Context) error {
	found, err := t.hold(ctx)
	if err != nil {
		return err
	}
	if err := t.mirrorsSettled(ctx); err != nil {
		return err
	}
	if err := t.checkMirrors(ctx); err != nil {
		return err
	}
	if t.proof == VerifyFull {
		if err := t.compareSuspended(ctx); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	lasting := context.WithoutCancel(ctx)
	if err := t.settleOn(lasting); err != nil {
		return err
	}
	exported := t.proof == VerifyRunning && t.export(lasting)
	if err := t.leaveRunning(lasting, found); err != nil {
		return err
	}
	if exported {
		if err := t.compareRunning(ctx); err != nil {
			return err
		}
	}
	if t.report.Verified = t.proof; t.proof == VerifyStructure {
		t.notef("the new disks were checked as images, and not compared with the old ones")
	}
	t.notef("its QEMU reads the old, identical read-only files until its next start, and what it says on its console until then is not in the new console log")
	t.noteRescueMode()
	return t.unpin(lasting)
}

// noteRescueMode says how an instance leaves rescue mode whose definition from
// before is gone: Nova keeps it in a file that nobody holds
// (nova/virt/libvirt/driver.py, rescue and unrescue).
func (t *task) noteRescueMode() {
	if t.ip.Server == nil || t.ip.Server.VMState != VMRescued {
		return
	}
	path := filepath.Join(t.s.e.Settings.InstancesPath, t.ip.UUID, "unrescue.xml")
	if _, err := t.s.root.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		t.notef("Nova's unrescue needs %s, which nobody holds and which is gone: to leave rescue mode, openstack server set --state active %s, then os-rescue reboot --instance %[2]s", path, t.ip.UUID)
	}
}

// settleOn moves the guest onto the mirrors and makes sure that it is on them.
func (t *task) settleOn(ctx context.Context) error {
	if err := t.place(ctx); err != nil {
		return err
	}
	if err := t.pivotAll(ctx); err != nil {
		return err
	}
	for _, m := range t.moves {
		if err := t.own(ctx, m); err != nil {
			return err
		}
		t.staged = append(t.staged, &m.stagedFile)
	}
	return t.step(ctx, stepConfirm, "", func() error {
		held, err := heldBy(ctx, t.ip.Process.PID)
		if err != nil {
			return err
		}
		for _, m := range t.moves {
			if err := t.isMoved(m, held); err != nil {
				return err
			}
		}
		return nil
	})
}

// isMoved is an error unless QEMU has the new inode open as it had the old one,
// and the chain on disk is whole.
func (t *task) isMoved(m *mirrored, held []heldFile) error {
	on := false
	for _, h := range held {
		if h.Stat.Ino == m.plan.Inode && h.Stat.Dev == m.plan.Device {
			return fmt.Errorf("%w: QEMU still has the old inode of %s open", ErrUnproven, m.plan.Path)
		}
		if h.inode() == m.inode && h.writable() {
			on = h.direct() == m.plan.Direct
		}
	}
	if !on {
		return fmt.Errorf("%w: QEMU does not have the new %s open as it had the old one", ErrUnproven, m.plan.Path)
	}
	if m.plan.Format == "qcow2" {
		if err := m.measure(); err != nil {
			return err
		}
		header, err := qcow2.ParseHeader(qcow2.Aligned{File: m.file}, m.size)
		if err != nil {
			return fmt.Errorf("%w: the header of the new %s: %w", ErrUnproven, m.plan.Path, err)
		}
		if err := checkHeader(Domain{Disks: []Disk{m.disk}}, m.plan.Path, header); err != nil {
			return err
		}
	}
	for _, member := range m.disk.Chain[1:] {
		if member.Source != SourceFile {
			continue
		}
		if _, err := t.s.root.Lstat(member.Path); err != nil {
			return fmt.Errorf("%w: the backing file %s: %w", ErrUnproven, member.Path, err)
		}
	}
	return nil
}

// leaveRunning undoes what was only for the move: the guest goes on, and its
// directory is its owner's again.
func (t *task) leaveRunning(ctx context.Context, found DomainState) error {
	t.undos = slices.DeleteFunc(slices.Clone(t.undos), func(u undo) bool { return u.step == stepCleanup })
	t.committed = true
	// The guest first: it is the last that was noted.
	err := t.rollback(ctx)
	if found == StatePaused && err == nil {
		t.notef("its owner had paused it, and it stays so")
	}
	return err
}
