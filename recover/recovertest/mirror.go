package recovertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// fakeMirror is the mirror of a disk: what it holds is complete from the beginning,
// and how far it says to be is what an operator's limit allows.
type fakeMirror struct {
	path           string
	fd             int // QEMU's descriptor
	total          int64
	bytesPerSecond uint64
	begun          time.Time
	looks          int // at its state; a mirror without a limit is ready at the second
}

func (m *fakeMirror) state() recover.MirrorState {
	s := recover.MirrorState{Total: m.total, Copied: m.total}
	switch {
	case m.bytesPerSecond > 0:
		s.Copied = min(m.total, int64(float64(m.bytesPerSecond)*time.Since(m.begun).Seconds()))
	case m.looks < 2:
		s.Copied = m.total / 2
	}
	s.Ready = s.Copied == s.Total
	return s
}

// MirrorSupport returns v.Support.
func (v *FakeHypervisor) MirrorSupport(ctx context.Context) (recover.MirrorSupport, error) {
	err := v.enter(ctx, "MirrorSupport", "")
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.Support, err
}

// Mirror has the domain's QEMU open the file, and copies the disk's image into it. A
// file that can't take it ends the mirror, not the call.
func (v *FakeHypervisor) Mirror(ctx context.Context, uuid string, r recover.MirrorRequest) error {
	return v.act(ctx, "mirror", uuid, func(d *FakeDomain) error {
		if d.QEMU == nil {
			return errOff
		}
		if _, err := d.disk(r.Target); err != nil {
			return err
		}
		if kind := d.BlockJobs[r.Target]; kind != "" {
			return fmt.Errorf("%w: %s of %s", errJob, kind, r.Target)
		}
		if st, err := os.Lstat(r.Path); err != nil || !st.Mode().IsRegular() || st.Size() != 0 {
			return errors.Join(fmt.Errorf("%s is no empty file", r.Path), err)
		}
		fd, err := d.QEMU.open(r.Path)
		if err != nil {
			return err
		}
		m := &fakeMirror{path: r.Path, fd: fd, bytesPerSecond: r.BytesPerSecond, begun: time.Now()}
		if m.total, err = d.copyDisk(r.Target, func() (*os.File, error) { return d.QEMU.file(fd, os.O_RDWR) }); err != nil {
			return d.QEMU.close(fd) // as a full file system ends a job that has begun
		}
		if d.mirrors == nil {
			d.mirrors = map[string]*fakeMirror{}
		}
		d.mirrors[r.Target] = m
		d.setJob(r.Target, "copy")
		return nil
	})
}

// copyDisk copies what QEMU holds as a disk's top image, without its holes.
func (d *FakeDomain) copyDisk(target string, open func() (*os.File, error)) (int64, error) {
	from, err := d.QEMU.file(d.fds[target], os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	to, err := open()
	if err != nil {
		return 0, err
	}
	defer to.Close()
	size, err := from.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	if err := to.Truncate(size); err != nil {
		return 0, err
	}
	const piece = 64 << 10
	for off := int64(0); off < size; off += piece {
		data := make([]byte, min(piece, size-off))
		if _, err := from.ReadAt(data, off); err != nil {
			return 0, err
		}
		if !slices.ContainsFunc(data, func(b byte) bool { return b != 0 }) {
			continue
		}
		if _, err := to.WriteAt(data, off); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// MirrorState says how far a mirror is; asking moves it on.
func (v *FakeHypervisor) MirrorState(ctx context.Context, uuid, target string) (s recover.MirrorState, err error) {
	err = v.act(ctx, "mirror-state", uuid, func(d *FakeDomain) error {
		m := d.mirrors[target]
		if m == nil {
			return recover.ErrNoMirror
		}
		m.looks++
		s = m.state()
		return nil
	})
	return s, err
}

// Pivot has the domain's QEMU go on with the mirror, and close the disk's image.
func (v *FakeHypervisor) Pivot(ctx context.Context, uuid, target string) error {
	return v.act(ctx, "pivot", uuid, func(d *FakeDomain) error {
		m := d.mirrors[target]
		if m == nil {
			return recover.ErrNoMirror
		}
		if !m.state().Ready {
			return fmt.Errorf("the mirror of %s is not ready", target)
		}
		if held, err := holds(d.PID, m.path); err != nil || !held {
			// As QEMU 7.2, which ends the job.
			return errors.Join(recover.ErrNoMirror, fmt.Errorf("the mirror's file is not at %s", m.path), err, d.endMirror(target))
		}
		disk, err := d.disk(target)
		if err != nil {
			return err
		}
		if err := d.QEMU.close(d.fds[target]); err != nil {
			return err
		}
		d.fds[target] = m.fd
		disk.Chain = slices.Clone(disk.Chain)
		disk.Chain[0].Path = m.path
		delete(d.mirrors, target)
		d.setJob(target, "")
		return nil
	})
}

// EndMirror has the domain's QEMU close the mirror.
func (v *FakeHypervisor) EndMirror(ctx context.Context, uuid, target string) error {
	err := v.act(ctx, "end-mirror", uuid, func(d *FakeDomain) error { return d.endMirror(target) })
	if errors.Is(err, recover.ErrNoDomain) {
		return nil
	}
	return err
}

func (d *FakeDomain) endMirror(target string) error {
	m := d.mirrors[target]
	if m == nil {
		return nil
	}
	delete(d.mirrors, target)
	d.setJob(target, "")
	return d.QEMU.close(m.fd)
}

// Export copies the disks to their scratch files and serves those.
func (v *FakeHypervisor) Export(ctx context.Context, uuid string, disks []recover.ExportDisk) (socket string, err error) {
	err = v.act(ctx, "export", uuid, func(d *FakeDomain) (err error) {
		socket, err = d.beginExport(ctx, disks)
		return err
	})
	return socket, err
}

// EndExport ends the export and removes its scratch files.
func (v *FakeHypervisor) EndExport(ctx context.Context, uuid string) error {
	err := v.act(ctx, "end-export", uuid, func(d *FakeDomain) error { d.endExport(); return nil })
	if errors.Is(err, recover.ErrNoDomain) {
		return nil
	}
	return err
}
