package recover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// chooseProof decides how the mirrors are proven. A comparison of what was
// mirrored takes no longer than the mirroring did, which read the one side and
// wrote the other.
func (t *task) chooseProof(support MirrorSupport, mirroring time.Duration) {
	wish := t.s.plan.Options.Verify
	longest := cmp.Or(t.s.plan.Options.Live.MaxPause, DefaultMaxPause)
	switch {
	case wish == VerifyFull || wish == VerifyStructure:
		t.proof = wish
	case support.Export:
		t.proof = VerifyRunning
	case wish == VerifyRunning || mirroring > longest:
		t.proof = VerifyStructure
		t.notef("this hypervisor can't show a disk as it was while the guest writes on, and a comparison under the suspend may take %s", mirroring.Round(time.Second))
	default:
		t.proof = VerifyFull
	}
}

// DefaultMaxPause is LiveOptions.MaxPause where it is 0.
const DefaultMaxPause = 30 * time.Second

// checkMirrors has qemu-img look through the mirrors that are images, with the
// guest suspended: all that QEMU knows of them is on disk.
func (t *task) checkMirrors(ctx context.Context) error {
	uid, gid, err := t.qemuUser()
	if err != nil {
		return err
	}
	for _, m := range t.moves {
		if m.plan.Format != "qcow2" {
			continue
		}
		err := t.step(ctx, stepCheck, m.plan.Path, func() error {
			result, err := qcow2.Check(ctx, m.file, qcow2.CheckOptions{UID: uid, GID: gid, Direct: m.plan.Direct, InService: true})
			if err != nil {
				return fmt.Errorf("check the mirror of %s: %w", m.plan.Path, err)
			}
			if result.Corrupt() {
				return fmt.Errorf("%w: qemu-img check finds %d corruptions in the mirror of %s", ErrCorrupt, result.Corruptions, m.plan.Path)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// qemuUser is who the instance's QEMU runs as: what it may read, whoever parses
// the same bytes for it may read. When that has ended it is who checks copies.
func (t *task) qemuUser() (uid, gid uint32, err error) {
	if !t.sameProcess() {
		owner, err := t.s.root.Owner(t.s.e.Settings.CheckUser, t.s.e.Settings.CheckGroup, 0o600)
		return owner.UID, owner.GID, err
	}
	data, err := os.ReadFile(filepath.Join(procDir, strconv.Itoa(t.ip.Process.PID), "status"))
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

// sides opens the two sides of a comparison of one disk: the lost inode and the
// new file, each with the backing files that libvirt says.
func (t *task) sides(ctx context.Context, m *mirrored) (old, current qcow2.Side, done func(), err error) {
	var open []*os.File
	done = func() {
		for _, f := range open {
			f.Close()
		}
	}
	src, err := t.s.source(ctx, m.plan)
	if err != nil {
		return old, current, done, err
	}
	old.Chain = []qcow2.Member{{File: src.File, Format: m.plan.Format}}
	current.Chain = []qcow2.Member{{File: m.file, Format: m.plan.Format}}
	for _, member := range m.disk.Chain[1:] {
		if member.Source != SourceFile && member.Source != SourceBlock {
			return old, current, done, fmt.Errorf("its backing file is no file (%s)", member.Source)
		}
		r, err := openRoot(t.s.e.Settings.Root)
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

// compareOne compares one disk's old file with its new one, or with what is
// exported at that socket.
func (t *task) compareOne(ctx context.Context, m *mirrored, socket string) error {
	return t.step(ctx, stepCompare, m.plan.Path, func() error {
		uid, gid, err := t.qemuUser()
		if err != nil {
			return err
		}
		old, current, done, err := t.sides(ctx, m)
		defer done()
		if err != nil {
			return err
		}
		if socket != "" {
			current = qcow2.Side{Socket: socket, Export: m.plan.Target}
		}
		show := t.s.e.Progress.File(t.subject(), m.plan.Path, stepCompare, m.plan.Allocated)
		defer show.Done()
		var shown int64
		err = qcow2.Compare(ctx, old, current, qcow2.CompareOptions{UID: uid, GID: gid, Direct: m.plan.Direct, Progress: func(share float64) {
			if now := int64(share * float64(m.plan.Allocated)); now > shown {
				show.Add(now - shown)
				shown = now
			}
		}})
		if errors.Is(err, qcow2.ErrDiffers) {
			return fmt.Errorf("%w: %s: %w", ErrUnproven, m.plan.Path, err)
		}
		return err
	})
}

// compareSuspended compares every mirror in full, while the guest waits.
func (t *task) compareSuspended(ctx context.Context) error {
	for _, m := range t.moves {
		if err := t.compareOne(ctx, m, ""); err != nil {
			return err
		}
	}
	return nil
}

// export has QEMU show the new disks as they are at the suspended guest's last
// instruction, whatever it writes later. Where that fails the guest is already on
// its new disks: they stay checked, and not compared.
func (t *task) export(ctx context.Context) bool {
	var rec exportRecord
	var disks []ExportDisk
	for _, m := range t.moves {
		scratch := filepath.Join(filepath.Dir(m.plan.Path), stagePrefix+t.s.plan.Run+"-"+m.plan.Target)
		rec.Scratch = append(rec.Scratch, scratch)
		disks = append(disks, ExportDisk{Target: m.plan.Target, Scratch: scratch})
	}
	err := t.stepData(ctx, stepExport, "", rec, func() (_ any, err error) {
		t.socket, err = t.s.e.Hypervisor.Export(ctx, t.ip.UUID, disks)
		return nil, err
	})
	if err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("the new disks can't be compared while the guest runs")
		t.notef("the hypervisor could not show the new disks while the guest runs (%v)", err)
		t.proof = VerifyStructure
		if err := t.endExport(ctx); err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("the export could not be ended")
		}
	}
	return err == nil
}

func (t *task) endExport(ctx context.Context) error {
	return t.step(ctx, stepEndExport, "", func() error { return t.s.e.Hypervisor.EndExport(ctx, t.ip.UUID) })
}

// compareRunning compares the old inodes, which nobody writes any more, with the
// export, while the guest runs. What it finds different is kept in a file of its
// own: the old inode is the truth, and lives only as long as it is held.
func (t *task) compareRunning(ctx context.Context) error {
	lasting := context.WithoutCancel(ctx)
	watched, stop := watchRoom(ctx, t.roomLeft)
	var failed error
	for _, m := range t.moves {
		err := t.compareOne(watched, m, t.socket)
		switch {
		case err == nil:
		case errors.Is(err, ErrUnproven):
			kerr := t.keepOld(lasting, m.plan)
			t.oldKept = kerr == nil && (failed == nil || t.oldKept)
			failed = errors.Join(failed, err, kerr)
		default:
			t.proof = VerifyStructure
			t.notef("%s could not be compared: %v", m.plan.Path, cmp.Or(context.Cause(watched), err))
		}
	}
	stop()
	if err := t.endExport(lasting); err != nil {
		return errors.Join(failed, fmt.Errorf("its disks are back, but the comparison's backup job can't be ended: %w", err))
	}
	return failed
}

// watchRoom returns a context that is cancelled when no room is left: what makes
// files grow while guests write must end before it fills a file system up, or
// their writes fail. stop ends the watching.
func watchRoom(ctx context.Context, left func() error) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for watched.Err() == nil {
			if err := left(); err != nil {
				cancel(err)
			}
			pause(watched, time.Second)
		}
	}()
	return watched, func() {
		cancel(nil)
		<-ended
	}
}

// oldPath is where the disk as it was before is kept when the new one differs.
func (t *task) oldPath(f FilePlan) string { return f.Path + ".before-" + t.s.plan.Run }

// keepOld copies the old inode of a disk out, to a file beside the new one.
func (t *task) keepOld(ctx context.Context, f FilePlan) error {
	f.Path = t.oldPath(f)
	staged, err := t.stage(ctx, f)
	if err == nil {
		defer staged.file.Close()
		err = t.publish(ctx, staged)
	}
	if err != nil {
		return fmt.Errorf("and the disk as it was before could not be kept in %s: %w", f.Path, errors.Join(err, t.unstage(ctx, staged)))
	}
	t.notef("the disk as it was before is kept in %s", f.Path)
	return nil
}
