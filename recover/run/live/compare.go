package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// compare compares one disk's old file with its new one, or with what is exported
// at that socket. ErrUnproven when they differ.
func (s *mirrors) compare(ctx context.Context, m *mirror, socket string) error {
	return s.t.StepData(ctx, journal.StepCompare, m.want.Path, nil, func() (any, error) {
		err := s.compareNow(ctx, m, socket)
		if err != nil {
			return journal.Comparison{Differs: errors.Is(err, recover.ErrUnproven)}, err
		}
		m.compared = true
		return nil, nil
	})
}

func (s *mirrors) compareNow(ctx context.Context, m *mirror, socket string) error {
	account, err := s.account(m)
	if err != nil {
		return err
	}
	old, current, done, err := s.sides(ctx, m)
	defer done()
	if err != nil {
		return err
	}
	if socket != "" {
		current = qcow2.Side{Socket: filepath.Join(s.t.Run.Settings.Root, socket), Export: m.want.Target}
	}
	show := s.t.Run.Progress.File(s.t.Subject(), m.want.Path, journal.StepCompare, m.want.Allocated)
	defer show.Done()
	var shown int64
	progress := func(share float64) {
		if now := int64(share * float64(m.want.Allocated)); now > shown {
			show.Add(now - shown)
			shown = now
		}
	}
	err = qcow2.Compare(ctx, old, current, qcow2.CompareOptions{Account: account, Direct: m.want.Direct, Progress: progress})
	if errors.Is(err, qcow2.ErrDiffers) {
		return fmt.Errorf("%w: %s: %w", recover.ErrUnproven, m.want.Path, err)
	}
	return err
}

// sides opens the two sides of a comparison of one disk: the lost inode and the
// new file, each with the backing files that libvirt says.
func (s *mirrors) sides(ctx context.Context, m *mirror) (old, current qcow2.Side, done func(), err error) {
	var open []*os.File
	done = func() {
		for _, f := range open {
			f.Close()
		}
	}
	src, err := s.t.Run.Source(ctx, m.want)
	if err != nil {
		return old, current, done, err
	}
	old.Chain = []qcow2.Member{{File: src.File, Format: m.want.Format}}
	current.Chain = []qcow2.Member{{File: m.file, Format: m.want.Format}}
	for _, member := range m.disk.Chain[1:] {
		if member.Source != recover.SourceFile && member.Source != recover.SourceBlock {
			return old, current, done, fmt.Errorf("its backing file is no file (%s)", member.Source)
		}
		r, err := procfs.OpenRoot(s.t.Run.Settings.Root)
		if err != nil {
			return old, current, done, err
		}
		f, err := r.Open(member.Path)
		r.Close()
		if err != nil {
			return old, current, done, err
		}
		open = append(open, f)
		old.Chain = append(old.Chain, qcow2.Member{File: f, Format: member.Format})
		current.Chain = append(current.Chain, qcow2.Member{File: f, Format: member.Format})
	}
	return old, current, done, nil
}

// account is who the instance's QEMU runs as: what it may read, whoever parses the same bytes
// for it may read. When that has ended it is whose the disk is.
func (s *mirrors) account(m *mirror) (qcow2.Account, error) {
	if !s.guest.SameProcess() {
		st, err := identity.OfFile(m.file)
		return qcow2.Account{UID: st.Uid, GID: st.Gid}, err
	}
	qemu, err := procfs.Open(procfs.Dir, s.t.Plan.Process.PID)
	if err != nil {
		return qcow2.Account{}, err
	}
	defer qemu.Close()
	uid, gid, err := qemu.EffectiveIDs()
	return qcow2.Account{UID: uid, GID: gid}, err
}
