package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/qcow2"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// verification proves the new disks of one guest, in the way that choose decides on.
type verification struct {
	t       *task.Task
	files   *staging.Set
	mirrors *mirrors

	how    recover.Verify
	socket string // of the export of its disks
}

// choose decides how the mirrors are proven; unexportable says why the guest's disks are
// not to be exported, whatever the hypervisor can do. A comparison of what was mirrored takes
// no longer than the mirroring did, which read the one side and wrote the other. ErrRefused when
// nothing but a longer pause could prove one of them.
func (v *verification) choose(support recover.MirrorSupport, unexportable string, mirroring time.Duration) error {
	wish, longest := v.t.Run.Plan.Options.Verify, v.t.Run.Plan.Options.Live.LongestPause()
	raw := slices.IndexFunc(v.mirrors.all, func(m *mirror) bool { return m.want.Format != "qcow2" })
	switch {
	case wish == recover.VerifyFull || wish == recover.VerifyStructure:
		v.how = wish
		return nil
	case support.Export && unexportable == "":
		v.how = recover.VerifyRunning
		return nil
	case mirroring > longest && raw >= 0:
		return fmt.Errorf("%w: %s is no image that can be checked, it can't be compared while the guest runs (%s), and to compare it "+
			"under the suspend may take %s, more than --max-pause (%s): allow it with a longer --max-pause or --verify full, or use "+
			"--mode reboot; --verify structure moves the guest without any proof of it", recover.ErrRefused, v.mirrors.all[raw].want.Path,
			cmp.Or(unexportable, "this hypervisor can't show a disk as it was"), mirroring.Round(time.Second), longest)
	case mirroring > longest:
		v.how = recover.VerifyStructure
		v.t.Notef("a comparison under the suspend may take %s", mirroring.Round(time.Second))
	default:
		v.how = recover.VerifyFull
	}
	if unexportable != "" {
		v.t.Notef("it was not compared while it runs: %s, and QEMU may crash when it has shown such a disk", unexportable)
	} else {
		v.t.Notef("this hypervisor can't show a disk as it was while the guest writes on")
	}
	return nil
}

// whileSuspended proves the mirrors as far as that is done under the suspend: every
// image is checked, and with VerifyFull every disk is compared.
func (v *verification) whileSuspended(ctx context.Context) error {
	if err := v.check(ctx); err != nil {
		return err
	}
	if v.how != recover.VerifyFull {
		return nil
	}
	for _, m := range v.mirrors.all {
		if err := v.mirrors.compare(ctx, m, ""); err != nil {
			return err
		}
	}
	return nil
}

// check has qemu-img look through the mirrors that are images, with the guest
// suspended: all that QEMU knows of them is on disk. ErrCorrupt.
func (v *verification) check(ctx context.Context) error {
	for _, m := range v.mirrors.all {
		waived := v.t.Run.Plan.Options.Verify == recover.VerifyStructure
		if m.want.Format != "qcow2" && !waived {
			continue
		}
		err := v.t.StepData(ctx, journal.StepCheck, m.want.Path, nil, func() (any, error) {
			if m.want.Format != "qcow2" {
				m.checked = true
				return journal.Check{Skipped: "it is no image", Waived: true}, nil
			}
			skipped, err := v.checkImage(ctx, m)
			if err != nil {
				return nil, err
			}
			m.checked = skipped == ""
			return journal.Check{Skipped: skipped}, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkImage is check for one image. skipped says why qemu-img could not look through it.
func (v *verification) checkImage(ctx context.Context, m *mirror) (skipped string, err error) {
	account, err := v.mirrors.account(m)
	if err != nil {
		return "", err
	}
	result, err := qcow2.Check(ctx, m.file, qcow2.CheckOptions{InService: &account, Direct: m.want.Direct})
	if err != nil {
		return "", fmt.Errorf("check the mirror of %s: %w", m.want.Path, err)
	}
	if result.Skipped != "" && v.how == recover.VerifyStructure {
		return "", fmt.Errorf("%w: the mirror of %s can't be checked: %s", recover.ErrUnproven, m.want.Path, result.Skipped)
	}
	if result.Corrupt() {
		return "", fmt.Errorf("%w: qemu-img check finds %d corruptions in the mirror of %s", recover.ErrCorrupt, result.Corruptions, m.want.Path)
	}
	return result.Skipped, nil
}

// export has QEMU show the new disks as they are at the suspended guest's last
// instruction, whatever it writes later. false when that is not wanted, or fails:
// the guest is already on its new disks, and they are not compared.
func (v *verification) export(ctx context.Context) bool {
	if v.how != recover.VerifyRunning {
		return false
	}
	t := v.t
	var rec journal.Export
	var disks []recover.ExportDisk
	for _, m := range v.mirrors.all {
		scratch := filepath.Join(filepath.Dir(m.want.Path), recover.StagePrefix+t.Run.Plan.Run+"-"+m.want.Target)
		rec.Scratch = append(rec.Scratch, scratch)
		disks = append(disks, recover.ExportDisk{Target: m.want.Target, Scratch: scratch})
	}
	err := t.StepData(ctx, journal.StepExport, "", rec, func() (_ any, err error) {
		v.socket, err = t.Run.Hypervisor.Export(ctx, t.Plan.UUID, disks)
		return nil, err
	})
	if err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("the new disks can't be compared while the guest runs")
		t.Notef("the hypervisor could not show the new disks while the guest runs (%v)", err)
		v.how = recover.VerifyStructure
		if err := v.endExport(ctx); err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("the export could not be ended")
		}
	}
	return err == nil
}

func (v *verification) endExport(ctx context.Context) error {
	return v.t.Step(ctx, journal.StepEndExport, "", func() error { return v.t.Run.Hypervisor.EndExport(ctx, v.t.Plan.UUID) })
}

// whileRunning compares the old inodes, which nobody writes any more, with the
// export, while the guest runs. An old disk that differs is kept in a file of its own, and is
// ErrUnproven: the old inode is the truth, and lives only as long as it is held.
func (v *verification) whileRunning(ctx context.Context) error {
	lasting := context.WithoutCancel(ctx)
	watched, stop := staging.Watch(ctx, v.mirrors.roomLeft)
	var differ, lost error
	for _, m := range v.mirrors.all {
		err := v.mirrors.compare(watched, m, v.socket)
		switch {
		case err == nil:
			v.files.NoteMoved(m.want, true)
		case errors.Is(err, recover.ErrUnproven):
			v.files.NoteMoved(m.want, false)
			kerr := v.keepOld(lasting, m.want)
			lost = errors.Join(lost, kerr)
			differ = errors.Join(differ, err, kerr)
		default:
			v.how = recover.VerifyStructure
			v.t.Notef("%s could not be compared: %v", m.want.Path, cmp.Or(context.Cause(watched), err))
		}
	}
	stop()
	if differ != nil && lost == nil {
		differ = errors.Join(differ, v.t.Enter(lasting, task.EventKeepOld))
	}
	if err := v.endExport(lasting); err != nil {
		return errors.Join(differ, fmt.Errorf("its disks are back, but the comparison's backup job can't be ended: %w", err))
	}
	return differ
}

// notVerified returns ErrNotVerified when there are disks that the guest was moved onto and
// that nothing has proven, not even a check.
func (v *verification) notVerified(ctx context.Context) error {
	var paths []string
	for _, m := range v.mirrors.all {
		if !m.isProven() {
			paths = append(paths, m.want.Path)
		}
	}
	if len(paths) == 0 {
		return nil
	}
	err := fmt.Errorf("%w: %s", ErrNotVerified, strings.Join(paths, ", "))
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return err
}

// keepOld copies the old inode of a disk out, to a file beside the new one.
func (v *verification) keepOld(ctx context.Context, f recover.FilePlan) error {
	f.Path = recover.BeforeName(f.Path, v.t.Run.Plan.Run)
	err := staging.RoomFor(v.t, f)
	if err == nil {
		_, err = v.files.CopyOut(ctx, f)
	}
	if err != nil {
		return fmt.Errorf("the disk as it was before could not be kept in %s: %w", f.Path, err)
	}
	v.t.Notef("the disk as it was before is kept in %s", f.Path)
	return nil
}
