package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// compare compares one disk's old file with its new one, or with what is exported
// at that socket. ErrUnproven when they differ.
func (s *mirrors) compare(ctx context.Context, m *mirror, socket string) error {
	return s.t.Step(ctx, journal.StepCompare, m.want.Path, func() error {
		uid, gid, err := s.qemuUser()
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
		err = qcow2.Compare(ctx, old, current, qcow2.CompareOptions{UID: uid, GID: gid, Direct: m.want.Direct, Progress: progress})
		if errors.Is(err, qcow2.ErrDiffers) {
			return fmt.Errorf("%w: %s: %w", recover.ErrUnproven, m.want.Path, err)
		}
		return err
	})
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

// qemuUser is who the instance's QEMU runs as: what it may read, whoever parses
// the same bytes for it may read. When that has ended it is who checks copies.
func (s *mirrors) qemuUser() (uid, gid uint32, err error) {
	if !s.guest.SameProcess() {
		owner, err := s.t.Run.Root.Owner(s.t.Run.Settings.CheckUser, s.t.Run.Settings.CheckGroup, 0o600)
		return owner.UID, owner.GID, err
	}
	data, err := os.ReadFile(filepath.Join(procfs.Dir, strconv.Itoa(s.t.Plan.Process.PID), "status"))
	if err != nil {
		return 0, 0, err
	}
	ids := map[string]uint32{}
	for line := range strings.Lines(string(data)) {
		key, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if (key != "Uid" && key != "Gid") || len(fields) < 2 {
			continue
		}
		id, err := strconv.ParseUint(fields[1], 10, 32) // the effective one
		if err != nil {
			return 0, 0, err
		}
		ids[key] = uint32(id)
	}
	return ids["Uid"], ids["Gid"], nil
}
