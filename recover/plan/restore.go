package plan

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
)

// restorePlans makes the plans of restores.
type restorePlans struct {
	*planner
	stored manifest.Manifest
}

// plan plans the restore of one instance from a backup.
func (p restorePlans) plan(ctx context.Context, i recover.Instance) (recover.InstancePlan, error) {
	todo := base(i)
	entry, _ := p.stored.Find(i.UUID)
	todo.Found = entry.Found
	switch why := p.inHand(i.UUID); {
	case why != "":
		return todo.Refuse("%s", why), nil
	case i.Verdict == recover.VerdictIntact, i.Verdict == recover.VerdictUnaffected:
		todo.Action = recover.ActionNone
		p.warnNoDomain(i)
		return todo, nil
	case i.Verdict == recover.VerdictUnknown, i.Verdict == recover.VerdictDisplaced:
		return todo.Refuse("%s", strings.Join(append(i.Reasons, i.Possible...), "; ")), nil
	case i.Misplaced != "":
		return todo.Refuse("%s", i.Misplaced), nil
	case i.Disagreement != "":
		return todo.Refuse("%s", i.Disagreement), nil
	case i.Server != nil && i.Server.VMState == recover.VMSoftDeleted:
		return todo.Refuse("%s", recover.Deletion(*i.Server)), nil
	case i.IsWhole():
		return todo.Refuse("%s", wholeButDiverging(i)), nil
	}
	todo.NextStart = i.AboutNextStart()
	for _, f := range entry.Files {
		if here(i, f.Path) {
			continue
		}
		file := recover.FilePlan{
			Path:      f.Path,
			Role:      f.Role,
			Format:    f.Format,
			Target:    f.Target,
			Backing:   f.Backing,
			Size:      f.Size,
			Allocated: f.Allocated,
			Writable:  f.Writable,
			UID:       f.UID,
			GID:       f.GID,
			Mode:      f.Mode,
			Stored:    f.Stored,
			SHA256:    f.SHA256,
		}
		if err := p.place(&file); err != nil {
			return todo.Refuse("%v", err), nil
		}
		if err := p.notShared(f.Path); err != nil {
			return todo.Refuse("%v", err), nil
		}
		todo.Files = append(todo.Files, file)
	}
	todo.Action = recover.ActionPublish
	if i.PID != 0 && recover.AnyWritable(todo.Files) {
		todo.Action = recover.ActionReboot
	} else if i.PID != 0 {
		todo.Action = recover.ActionPutBack
	}
	if why := p.startsElsewhere(i, todo); why != "" {
		return todo.Refuse("%s", why), nil
	}
	if reason := recover.HandsOff(i.Definition, todo.Action, todo.Paths()); reason != "" {
		return todo.Refuse("%s", reason), nil
	}
	if err := p.notOutrun(ctx, entry, i, &todo); err != nil {
		return todo.Refuse("%v", err), nil
	}
	if why, err := p.nova.refuse(ctx, i, todo); why != "" || err != nil {
		return todo.Refuse("%s", why), err
	}
	todo.Directories = p.directories.of(i)
	todo.Steps = p.restoreSteps(todo, entry)
	return todo, nil
}

// here is true when an instance's file is in place.
func here(i recover.Instance, path string) bool {
	return slices.ContainsFunc(i.Files, func(f recover.File) bool { return f.Path == path && !f.Lost() && f.State != recover.FileMissing })
}

// notShared returns ErrRefused when other hosts may write the directory to which a file
// will be restored: one of them may run the instance by now.
func (p restorePlans) notShared(path string) error {
	near, err := p.root.Nearest(path)
	if err != nil {
		return err
	}
	defer near.Close()
	dir, err := os.Open(filepath.Join(p.Settings.Root, near.Path()))
	if err != nil {
		return err
	}
	defer dir.Close()
	return p.notSharedFile(path, dir)
}

// notOutrun returns ErrOlder unless the guest has provably written nothing since the
// backup was taken: it is the same QEMU, and its write counters have not changed.
func (p restorePlans) notOutrun(ctx context.Context, entry manifest.Instance, i recover.Instance, todo *recover.InstancePlan) error {
	if p.Options.AcceptOlder || !recover.AnyWritable(todo.Files) {
		return nil
	}
	held := slices.ContainsFunc(i.Files, func(f recover.File) bool { return f.Writable && len(f.Holders) > 0 })
	better := ""
	if held {
		better = fmt.Sprintf("; its newer files are still held: os-rescue --instance %s brings those back and loses nothing", i.UUID)
	}
	taken := entry.Taken.Local().Format(time.DateTime)
	if i.PID == 0 {
		return fmt.Errorf("%w: the guest's QEMU has ended since the backup of %s, and may have written before it ended%s; "+
			"--accept-older restores the backup as it is", recover.ErrOlder, taken, better)
	}
	counters, err := p.Hypervisor.Counters(ctx, i.UUID)
	if err != nil {
		return err
	}
	now := recover.Snapshot{Process: i.Process, Counters: counters}
	if !entry.Snapshot.Unchanged(now) {
		return fmt.Errorf("%w: the guest has written since the backup of %s%s; --accept-older restores the backup as it is",
			recover.ErrOlder, taken, better)
	}
	todo.Restored = &entry.Snapshot
	return nil
}

// restoreSteps describes what a plan will do.
func (p restorePlans) restoreSteps(todo recover.InstancePlan, entry manifest.Instance) []string {
	steps := p.directories.steps(todo.Directories)
	add := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	for _, f := range todo.Files {
		add("copy %s from the backup of %s, compare it in full", f.Path, entry.Taken.Local().Format(time.DateTime))
	}
	if todo.Action == recover.ActionReboot {
		add("destroy the domain")
	}
	add("publish the copies with their owners and modes")
	switch {
	case p.Options.NoReboot:
		add("leave the domain off (--no-reboot)")
	case todo.Action == recover.ActionPutBack:
	case p.Cloud != nil && (todo.Found == recover.StateRunning || todo.Found == recover.StatePaused):
		add("hard reboot it through Nova (%s, as it was before the backup)", todo.Found)
	case todo.Found == recover.StateRunning, todo.Found == recover.StatePaused:
		add("start the domain (%s, as it was before the backup)", todo.Found)
	}
	return steps
}
