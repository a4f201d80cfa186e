package recover

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover/copier"
)

// restore plans the restoring of one instance from a backup.
func (p *planner) restore(ctx context.Context, hv Hypervisor, m Manifest, i Instance) (InstancePlan, error) {
	plan := base(i)
	entry, _ := m.find(i.UUID)
	plan.Found = entry.Found
	switch {
	case p.unsettled[i.UUID] != "":
		return plan.refuse("%s", inHand(p.unsettled[i.UUID])), nil
	case i.Verdict == VerdictIntact, i.Verdict == VerdictUnaffected:
		plan.Action = ActionNone
		return plan, nil
	case i.Verdict == VerdictUnknown, i.Verdict == VerdictDisplaced:
		return plan.refuse("%v", append(i.Reasons, i.Possible...)), nil
	case i.disagreement != "":
		return plan.refuse("%s", i.disagreement), nil
	}
	if reason := handsOff(i.domain); reason != "" {
		return plan.refuse("%s", reason), nil
	}
	for _, f := range entry.Files {
		if here(i, f.Path) {
			continue
		}
		fp := FilePlan{Path: f.Path, Role: f.Role, Format: f.Format, Target: f.Target, Backing: f.Backing, Size: f.Size, Allocated: f.Allocated,
			Writable: f.Writable, UID: f.UID, GID: f.GID, Mode: f.Mode, Stored: f.Stored, SHA256: f.SHA256}
		if err := p.place(&fp); err != nil {
			return plan.refuse("%v", err), nil
		}
		if err := p.notShared(f.Path); err != nil {
			return plan.refuse("%v", err), nil
		}
		plan.Files = append(plan.Files, fp)
	}
	plan.Action = ActionPublish
	if i.PID != 0 && anyWritable(plan.Files) {
		plan.Action = ActionReboot
	} else if i.PID != 0 {
		plan.Action = ActionPutBack
	}
	if err := p.notOutrun(ctx, hv, entry, i, &plan); err != nil {
		return plan.refuse("%v", err), nil
	}
	if why, err := p.refuseByNova(ctx, i, plan); why != "" || err != nil {
		return plan.refuse("%s", why), err
	}
	plan.Steps = p.restoreSteps(plan, entry)
	return plan, nil
}

// here is true when an instance has the file at its path, as it should be.
func here(i Instance, path string) bool {
	return slices.ContainsFunc(i.Files, func(f File) bool { return f.Path == path && !f.Lost() && f.State != FileMissing })
}

// notShared returns an error where other hosts may write the place that a file
// is restored to: one of them may run the instance by now.
func (p *planner) notShared(path string) error {
	if p.options.AcceptShared || p.cloud != nil {
		return nil
	}
	near, err := p.nearest(path)
	if err != nil {
		return err
	}
	defer near.Close()
	dir, err := os.Open(filepath.Join(p.settings.Root, near.Path()))
	if err != nil {
		return err
	}
	defer dir.Close()
	shared, err := copier.Shared(dir)
	if err == nil && shared {
		err = errShared(path)
	}
	return err
}

// notOutrun returns ErrOlder unless the guest has provably written nothing since
// the backup was taken: it is the same QEMU, and its counters stand where they stood.
func (p *planner) notOutrun(ctx context.Context, hv Hypervisor, entry ManifestInstance, i Instance, plan *InstancePlan) error {
	if p.options.AcceptOlder || !anyWritable(plan.Files) {
		return nil
	}
	held := slices.ContainsFunc(i.Files, func(f File) bool { return f.Writable && len(f.Holders) > 0 })
	rescue := ""
	if held {
		rescue = fmt.Sprintf("; what it wrote last is still held: os-rescue --instance %s restores that, and loses nothing", i.UUID)
	}
	if i.PID == 0 {
		return fmt.Errorf("%w: the guest's QEMU has ended since the backup of %s, and what it wrote until then can't be known%s; --accept-older restores the backup as it is",
			ErrOlder, entry.Taken.Local().Format(time.DateTime), rescue)
	}
	counters, err := hv.Counters(ctx, i.UUID)
	if err != nil {
		return err
	}
	now := Snapshot{Process: i.process, Counters: counters}
	if !entry.Snapshot.unchanged(now) {
		return fmt.Errorf("%w: the guest has written since the backup of %s%s; --accept-older restores the backup as it is", ErrOlder, entry.Taken.Local().Format(time.DateTime), rescue)
	}
	plan.Restored = &entry.Snapshot
	return nil
}

func (p *planner) restoreSteps(plan InstancePlan, entry ManifestInstance) []string {
	var steps []string
	add := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	for _, f := range plan.Files {
		add("copy %s from the backup of %s, compare it in full", f.Path, entry.Taken.Local().Format(time.DateTime))
	}
	if plan.Action == ActionReboot {
		add("destroy the domain")
	}
	add("publish the copies with their owners and modes")
	switch {
	case p.options.NoReboot:
		add("leave the domain off (--no-reboot)")
	case plan.Action == ActionPutBack:
	case p.cloud != nil && (plan.Found == StateRunning || plan.Found == StatePaused):
		add("hard reboot it through Nova (%s, as it was before the backup)", plan.Found)
	case plan.Found == StateRunning, plan.Found == StatePaused:
		add("start the domain (%s, as it was before the backup)", plan.Found)
	}
	return steps
}
