package plan

import (
	"cmp"
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
	lacks := slices.ContainsFunc(entry.Files, func(f manifest.File) bool { return lacksVariables(i, f.Path) })
	switch why := p.inHand(i.UUID); {
	case why != "":
		return todo.Refuse("%s", why), nil
	case (i.Verdict == recover.VerdictIntact || i.Verdict == recover.VerdictUnaffected) && !lacks:
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
	case i.IsWhole() && !lacks:
		return todo.Refuse("%s", wholeButDisputed(i)), nil
	}
	todo.NextStart = i.BeforeNextStart()
	for _, f := range entry.Files {
		here, displaced := standing(i, f.Path)
		if here {
			continue
		}
		if displaced {
			return todo.Refuse("%s is not lost: the file that its guest has is there under another name or in another place: "+
				"os-rescue --instance %s says where, and what gives it its name back", f.Path, i.UUID), nil
		}
		if why := p.notNamed(i, entry, f); why != "" {
			return todo.Refuse("%s", why), nil
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
			Corrupt:   f.Corrupt,
		}
		p.nameOwner(f, &file)
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
	if why := p.corrupt(i, todo); why != "" {
		return todo.Refuse("%s", why), nil
	}
	if err := p.notOlder(ctx, entry, i, &todo); err != nil {
		return todo.Refuse("%v", err), nil
	}
	if why, err := p.wouldLose(ctx, i, todo); why != "" || err != nil {
		return todo.Refuse("%s", why), err
	}
	if why, err := p.nova.refuse(ctx, i, todo); why != "" || err != nil {
		return todo.Refuse("%s", why), err
	}
	if why, err := p.wouldNotStart(ctx, i, todo); why != "" || err != nil {
		return todo.Refuse("%s", why), err
	}
	todo.Directories = p.directories.of(i)
	if why := p.names.obstacle(todo); why != "" {
		return todo.Refuse("%s", why), nil
	}
	todo.Steps = p.restoreSteps(todo, entry)
	return todo, nil
}

// lacksVariables is true for the path of a missing NVRAM, which keeps no instance from being
// intact: a start makes a new one, and only a backup has what the guest had stored there.
func lacksVariables(i recover.Instance, path string) bool {
	return slices.ContainsFunc(i.Files, func(f recover.File) bool { return f.Path == path && f.Role == recover.RoleNVRAM && f.MadeAtStart() })
}

// corrupt says which file of the backup was corrupt when it was backed up, so that no guest is ended
// for it; empty for none. Where nothing is ended that is a warning.
func (p restorePlans) corrupt(i recover.Instance, todo recover.InstancePlan) string {
	for _, f := range todo.Files {
		switch {
		case f.Corrupt == "":
		case todo.Action == recover.ActionReboot:
			return fmt.Sprintf("%s was corrupt when it was backed up (%s), and its guest is not ended for that: os-rescue --mode live makes a new "+
				"image from what the guest reads; a restore puts the copy back once the guest is off", f.Path, f.Corrupt)
		default:
			p.warn("%s: %s was corrupt when it was backed up (%s), and is put back as it was: with --no-reboot it is left off, and "+
				"qemu-img check -r all can repair it before a start", i.Domain, f.Path, f.Corrupt)
		}
	}
	return ""
}

// nameOwner gives a file outside the instances directory the owner that its original had, by
// name: a package that was installed again may have given its user another number.
func (p restorePlans) nameOwner(stored manifest.File, f *recover.FilePlan) {
	if recover.IsBelow(f.Path, p.Settings.InstancesPath) {
		return // the table of owners says
	}
	owner, err := p.root.Owner(cmp.Or(stored.User, fmt.Sprintf("+%d", f.UID)), cmp.Or(stored.Group, fmt.Sprintf("+%d", f.GID)), 0)
	if err != nil {
		p.warn("%s gets the numbers of its owner in the backup, %d:%d: %v", f.Path, f.UID, f.GID, err)
		return
	}
	f.UID, f.GID = owner.UID, owner.GID
}

// standing says whether an instance's file is in place, or a proven copy of it, and whether it
// is elsewhere and has a name. Of one that is unknown it is neither.
func standing(i recover.Instance, path string) (here, displaced bool) {
	for _, f := range i.Files {
		if f.Path == path {
			here = here || (f.State == recover.FilePresent || f.Proven) && !f.Unusable()
			displaced = displaced || f.State == recover.FileDisplaced
		}
	}
	return here, displaced
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

// restoreSteps describes what a plan will do.
func (p restorePlans) restoreSteps(todo recover.InstancePlan, entry manifest.Instance) []string {
	steps := p.directories.steps(todo.Directories)
	add := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	for _, f := range todo.Files {
		if f.Held != "" {
			add("compare what is still held of %s with the backup, in full, and stop if it differs", f.Path)
		}
	}
	for _, f := range todo.Files {
		add("copy %s from the backup of %s, compare it in full", f.Path, entry.Taken.Local().Format(time.DateTime))
	}
	switch {
	case todo.Action == recover.ActionReboot && todo.Restored != nil:
		add("destroy the domain; copy again what was written since the last look")
	case todo.Action == recover.ActionReboot:
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
