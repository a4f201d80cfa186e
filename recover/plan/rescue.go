package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// rescuePlans makes the plans of rescues.
type rescuePlans struct {
	*planner
	live *liveRules
}

// plan plans the rescue of one scanned instance.
func (p rescuePlans) plan(ctx context.Context, i recover.Instance) (recover.InstancePlan, error) {
	todo := base(i)
	if why := p.inHand(i.UUID); why != "" {
		return todo.Refuse("%s", why), nil
	}
	if i.Verdict == recover.VerdictIntact || i.Verdict == recover.VerdictUnaffected {
		todo.Action = recover.ActionNone
		for _, why := range []string{i.Disagreement, i.Misplaced} {
			if why != "" {
				p.warn("%s is %s and will be left alone, but: %s", i.Domain, i.Verdict, why)
			}
		}
		p.warnNoDomain(i)
		if i.Disagreement != "" || i.Misplaced != "" {
			return todo, nil
		}
		if todo.Directories = p.directories.unnamed(p.directories.of(i)); len(todo.Directories) > 0 {
			if why := p.names.obstacle(todo); why != "" {
				return todo.Refuse("%s", why), nil
			}
			todo.Action, todo.Steps = recover.ActionDirectories, p.directories.steps(todo.Directories)
		}
		return todo, nil
	}
	if refusal, ok := p.preclude(i); ok {
		return todo.Refuse("%s", refusal), nil
	}
	if why := firstCure(i); why != "" {
		return todo.Refuse("%s", why), nil
	}
	if i.IsWhole() || len(i.Superseded) > 0 && !slices.ContainsFunc(i.Files, recover.File.Lost) {
		return todo.Refuse("%s", wholeButDisputed(i)), nil
	}
	todo.NextStart = i.BeforeNextStart()
	lost, relinked := lostFiles(i), relinkedFiles(i)
	todo.Action = rescueAction(i, lost, relinked)
	mildest := todo.Action
	if todo.Action == recover.ActionReboot && (p.Options.Mode == recover.ModeLive || p.Options.Mode == recover.ModeAuto) {
		mildest = recover.ActionLive
	}
	// What the files say of themselves comes second: of an unusual disk they need not be what they seem.
	// What forbids only to end it comes last.
	untilItEnds := todo.Action
	if untilItEnds == recover.ActionReboot {
		untilItEnds = recover.ActionLive
	}
	if reason := handsOff(i, untilItEnds, lost, relinked); reason != "" {
		return todo.Refuse("%s", reason), nil
	}
	for _, f := range relinked {
		r, err := relinkPlans{p.planner}.plan(f)
		if err != nil {
			return todo.Refuse("%v", err), nil
		}
		todo.Relinks = append(todo.Relinks, r)
	}
	for _, f := range lost {
		file, err := p.file(i, f)
		if errors.Is(err, procfs.ErrNoDuplicate) && f.Role == recover.RoleConsoleLog {
			// virtlogd has it open for writing only, and its file system does not open it anew.
			p.warn("%s can't be read, and is left out: libvirt makes a new one at the next start (%v)", f.Path, err)
			continue
		}
		if err != nil {
			return todo.Refuse("%v", err), nil
		}
		todo.Files = append(todo.Files, file)
	}
	if mildest == recover.ActionLive {
		why, err := p.live.whyNot(ctx, i, todo)
		switch {
		case err != nil:
			return todo, err
		case why == "":
			todo.Action = recover.ActionLive
			todo.Unexported = i.Definition.Unexportable(todo.Files)
		case p.Options.Mode == recover.ModeLive:
			return todo.Refuse("mode live can't rescue it: %s", why), nil
		default:
			todo.NotLive = why
		}
	}
	if reason := recover.HandsOff(i.Definition, todo.Action, todo.Paths()); reason != "" {
		return p.notEnded(ctx, i, todo, reason)
	}
	if why := equalUntilItEnds(todo); why != "" && !p.Options.ReplaceExisting && !p.Resuming {
		return todo.Refuse("%s", why), nil
	}
	if err := p.backupFree(i.UUID); err != nil {
		return todo.Refuse("%v", err), nil
	}
	if todo.Action == recover.ActionReboot && !i.Definition.Persistent {
		return p.notEnded(ctx, i, todo, fmt.Sprintf("its domain is transient: destroying it would undefine it, and nothing could start it "+
			"again: virsh dumpxml --security-info %[1]s > %[1]s.xml and virsh define %[1]s.xml make it persistent", i.Domain))
	}
	todo.Found = foundByNova(i)
	if why, err := p.wouldLose(ctx, i, todo); why != "" || err != nil {
		return todo.Refuse("%s", why), err
	}
	if why := p.startsElsewhere(i, todo); why != "" {
		return todo.Refuse("%s", why), nil
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
	todo.Steps = p.steps(todo)
	return todo, nil
}

// notEnded refuses a plan that would end its guest, for a reason, and says whether mode live is the
// way on. The error is that of liveRules.whyNot.
func (p rescuePlans) notEnded(
	ctx context.Context, i recover.Instance, todo recover.InstancePlan, reason string,
) (recover.InstancePlan, error) {
	if todo.Action != recover.ActionReboot || recover.HandsOff(i.Definition, recover.ActionLive, todo.Paths()) != "" {
		return todo.Refuse("%s", reason), nil
	}
	why, err := todo.NotLive, error(nil)
	if why == "" {
		why, err = p.live.whyNot(ctx, i, todo)
	}
	if why == "" {
		return todo.Refuse("%s; os-rescue --mode live brings its files back without ending it", reason), err
	}
	// What names mode reboot as the way on is of no use here.
	why, _, _ = strings.Cut(why, ": --mode reboot")
	return todo.Refuse("%s; mode live, which would not end it, can't rescue it: %s", reason, why), err
}

// equalUntilItEnds says which disk has a file at its path that would be older than it when its QEMU
// has ended, even if that is equal now; empty for none.
func equalUntilItEnds(todo recover.InstancePlan) string {
	for _, f := range todo.Files {
		if todo.Action == recover.ActionReboot && f.Occupied && f.ClosingWrites {
			return fmt.Sprintf("a file stands at %s, and QEMU writes bitmaps or refcounts into the deleted one when it ends: that file would be "+
				"older then, even if it is equal now; move it away, or use --replace-existing, which moves it aside", f.Path)
		}
	}
	return ""
}

// lostFiles returns the files of an instance that a rescue brings back.
func lostFiles(i recover.Instance) []recover.File {
	var lost []recover.File
	for _, f := range i.Files {
		missingInfo := f.Role == recover.RoleDiskInfo && f.State == recover.FileMissing
		if (f.Lost() || missingInfo) && (f.Role != recover.RoleOther || f.GuardHeld) {
			lost = append(lost, f)
		}
	}
	return lost
}

// rescueAction is the least that brings lost files back, in mode reboot, and gives others
// their names back.
func rescueAction(i recover.Instance, lost, relinked []recover.File) recover.Action {
	written := slices.ContainsFunc(lost, func(f recover.File) bool { return f.Writable })
	switch {
	case written && i.PID == 0:
		return recover.ActionPublish
	case written:
		return recover.ActionReboot
	case slices.ContainsFunc(relinked, func(f recover.File) bool { return f.Remedy == recover.RemedyMoveBack }):
		return recover.ActionMoveBack
	case len(relinked) > 0:
		return recover.ActionLinkBack
	default:
		return recover.ActionPutBack
	}
}

// handsOff says why an action must not be done to an instance now; empty when it may. A
// file that gets its name back is not copied, whatever its disk is like.
func handsOff(i recover.Instance, action recover.Action, lost, relinked []recover.File) string {
	copying := action
	if action.RunsOn() {
		copying = recover.ActionPutBack
	}
	reason := recover.HandsOff(i.Definition, copying, pathsOf(lost))
	if reason == "" && len(relinked) > 0 {
		reason = recover.HandsOff(i.Definition, recover.ActionMoveBack, pathsOf(relinked))
	}
	return reason
}

func pathsOf(files []recover.File) []string {
	paths := make([]string, len(files))
	for n, f := range files {
		paths[n] = f.Path
	}
	return paths
}

// foundByNova returns the state to bring an instance back to: the state in which it is,
// while its QEMU runs. If its QEMU ended because Nova failed to reboot it, that is the
// state before the reboot. If the guard saw its files deleted while it ran and it has
// ended since, that is the state that the guard saw.
func foundByNova(i recover.Instance) recover.DomainState {
	ran := i.StateBefore == recover.StateRunning || i.StateBefore == recover.StatePaused
	switch {
	case i.PID != 0:
		return i.State
	case i.Server == nil && ran, ran && i.Server.VMState == recover.VMStopped:
		return i.StateBefore
	case i.Server == nil:
		return i.State
	}
	// libvirt no longer knows the domain: only the guard or Nova tells of it.
	unknown := i.GuardOnly || i.Definition.Nova == nil && len(i.Definition.Disks) == 0
	switch {
	case i.Server.VMState == recover.VMError, unknown && i.Server.VMState == recover.VMActive:
		return recover.StateRunning
	case unknown && i.Server.VMState == recover.VMPaused:
		return recover.StatePaused
	}
	return i.State
}

// preclude says why a rescue must leave an instance alone, before its files are looked
// at one by one.
func (p rescuePlans) preclude(i recover.Instance) (refusal string, ok bool) {
	why := strings.Join(append(i.Reasons, i.Possible...), "; ")
	switch {
	case i.Misplaced != "":
		return i.Misplaced, true
	case i.Disagreement != "":
		return i.Disagreement, true
	case i.Server != nil && i.Server.VMState == recover.VMSoftDeleted:
		return recover.Deletion(*i.Server), true
	case i.Verdict == recover.VerdictUnknown, i.Verdict == recover.VerdictLost && !lacksOnlyMedia(i):
		return why, true
	case i.Server == nil && i.Definition.Nova == nil && p.Options.Selection.All:
		return "it has no Nova metadata, so --all does not select it: name it with --instance " + i.UUID, true
	}
	return "", false
}

// lacksOnlyMedia is true for an instance that is off, of which files are held, and nothing is
// gone for good but what its guest only has in a drive: that keeps nothing from being put
// back, only a start.
func lacksOnlyMedia(i recover.Instance) bool {
	isOther := func(f recover.File) bool {
		return f.State == recover.FileUnknown ||
			f.State == recover.FileMissing && f.Remedy == recover.RemedyRestore && (f.Role != recover.RoleDisk || f.Writable)
	}
	return i.PID == 0 && len(lostFiles(i)) > 0 && !slices.ContainsFunc(i.Files, isOther)
}

// firstCure says what a person must put in order before a run can bring an instance back;
// empty for nothing.
func firstCure(i recover.Instance) string {
	for _, f := range i.Files {
		if f.Temporary {
			continue
		}
		if f.State == recover.FileDisplaced && !isRelinked(f) || f.Remedy == recover.RemedyMount || f.Unusable() {
			return fmt.Sprintf("%s must be back at its path first, so that the next start finds it: %s", f.Path, f.Reason)
		}
	}
	return ""
}

// amount describes how much of a file is to be copied.
func amount(f recover.FilePlan) string {
	if f.Allocated >= f.Size {
		return humanize.IBytes(uint64(f.Size))
	}
	return humanize.IBytes(uint64(f.Allocated)) + " of " + humanize.IBytes(uint64(f.Size))
}

// inItsPlace says what becomes of another file at a file's path, as the end of a sentence.
func inItsPlace(f recover.FilePlan) string {
	if !f.Occupied {
		return ""
	}
	return ", unless the file that stands there has the same bytes, and is kept"
}

// steps describes what a plan will do.
func (p rescuePlans) steps(todo recover.InstancePlan) (steps []string) {
	add := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	while := ""
	if todo.Process.PID != 0 {
		while = " while the guest runs"
	}
	steps = append(p.directories.steps(todo.Directories), relinkSteps(todo.Relinks, while)...)
	var written []recover.FilePlan
	for _, f := range todo.Files {
		switch {
		case f.Writable || f.Role == recover.RoleConsoleLog && !todo.Action.RunsOn() && todo.Action != recover.ActionLive:
			written = append(written, f)
		case f.Content != "":
			add("make %s from the domain's definition", f.Path)
		default:
			add("put back %s (%s)%s%s", f.Path, amount(f), while, inItsPlace(f))
		}
	}
	if p.Cloud != nil && todo.Server != nil {
		steps = append([]string{"lock it in Nova, so that its owner can't reboot or stop it during the run"}, steps...)
		defer func() { steps = append(steps, "unlock it") }()
	}
	if todo.Action == recover.ActionLive {
		return append(steps, p.live.steps(todo, written)...)
	}
	if todo.Action == recover.ActionReboot {
		if todo.Found == recover.StateRunning {
			add("copy its disks while it runs, unless the file system can clone them")
			add("freeze the guest's file systems, if its agent answers, and suspend it")
		} else {
			add("leave the guest paused, as it was found")
		}
	}
	for _, f := range written {
		add("copy %s (%s), compare it in full", f.Path, amount(f))
	}
	if p.Options.BackupDir != "" && len(written) > 0 {
		add("keep a copy of all files in %s", p.Options.BackupDir)
	}
	if todo.Action == recover.ActionReboot {
		add("destroy the domain; copy again what was written since the last look")
	}
	if len(written) > 0 {
		add("publish the copies with their owners and modes")
	}
	switch {
	case todo.Action.RunsOn():
	case p.Options.NoReboot:
		add("leave the domain off (--no-reboot)")
	case todo.Server != nil && p.Cloud != nil && todo.Found == recover.StateRunning:
		add("hard reboot it through Nova, wait until it is ACTIVE, and check that its QEMU has the published files open")
	case todo.Server != nil && p.Cloud != nil && todo.Found == recover.StatePaused:
		add("hard reboot it through Nova, check that its QEMU has the published files open, and pause it, as it was found")
	case todo.Found == recover.StateRunning:
		add("start the domain and check that its QEMU has the published files open")
	case todo.Found == recover.StatePaused:
		add("start the domain paused, as it was found, and check that its QEMU has the published files open")
	default:
		add("leave the domain off, as it was found")
	}
	return steps
}
