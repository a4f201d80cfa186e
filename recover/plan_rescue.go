package recover

import (
	"context"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
)

// rescuePlans makes the plans of rescues.
type rescuePlans struct {
	*planner
	live *liveRules
}

// plan plans the rescue of one scanned instance.
func (p rescuePlans) plan(ctx context.Context, i Instance) (InstancePlan, error) {
	todo := base(i)
	if why := p.inHand(i.UUID); why != "" {
		return todo.refuse("%s", why), nil
	}
	if i.Verdict == VerdictIntact || i.Verdict == VerdictUnaffected {
		if i.disagreement != "" {
			p.warn("%s is %s and will be left alone, but: %s", i.Domain, i.Verdict, i.disagreement)
		}
		todo.Action = ActionNone
		return todo, nil
	}
	if refusal, ok := p.preclude(i); ok {
		return todo.refuse("%s", refusal), nil
	}
	for _, f := range i.Files {
		if f.Role == RoleOther && !f.guarded || !f.Lost() && (f.Role != RoleDiskInfo || f.State != FileMissing) {
			continue
		}
		fp, err := p.file(i, f)
		if err != nil {
			return todo.refuse("%v", err), nil
		}
		todo.Files = append(todo.Files, fp)
	}
	todo.Action = ActionPutBack
	if anyWritable(todo.Files) {
		todo.Action = ActionReboot
		if i.PID == 0 {
			todo.Action = ActionPublish
		}
	}
	if reason := handsOff(i.domain); reason != "" {
		return todo.refuse("%s", reason), nil
	}
	if todo.Action == ActionReboot && (p.Options.Mode == ModeLive || p.Options.Mode == ModeAuto) {
		why, err := p.live.whyNot(ctx, i, todo)
		switch {
		case err != nil:
			return todo, err
		case why == "":
			todo.Action = ActionLive
		case p.Options.Mode == ModeLive:
			return todo.refuse("mode live can't rescue it: %s", why), nil
		default:
			todo.NotLive = why
		}
	}
	if err := p.backupFree(i.UUID); err != nil {
		return todo.refuse("%v", err), nil
	}
	if todo.Action == ActionReboot && !i.domain.Persistent {
		return todo.refuse("its domain is transient: destroying it would undefine it, and nothing could start it again"), nil
	}
	todo.Found = foundByNova(i)
	if why, err := p.nova.refuse(ctx, i, todo); why != "" || err != nil {
		return todo.refuse("%s", why), err
	}
	todo.Steps = p.steps(todo)
	return todo, nil
}

// foundByNova returns the state to bring an instance back to: the state in which it is,
// while its QEMU runs. If its QEMU ended because Nova failed to reboot it, that is the
// state before the reboot. If the guard saw its files deleted while it ran and it has
// ended since, that is the state that the guard saw.
func foundByNova(i Instance) DomainState {
	ran := i.before == StateRunning || i.before == StatePaused
	switch {
	case i.PID != 0:
		return i.State
	case i.server == nil && ran, ran && i.server.VMState == VMStopped:
		return i.before
	case i.server == nil:
		return i.State
	}
	forgotten := i.forgotten || i.domain.Nova == nil && len(i.domain.Disks) == 0
	switch {
	case i.server.VMState == VMError, forgotten && i.server.VMState == VMActive:
		return StateRunning
	case forgotten && i.server.VMState == VMPaused:
		return StatePaused
	}
	return i.State
}

// preclude says why a rescue must leave an instance alone, before its files are looked
// at one by one.
func (p rescuePlans) preclude(i Instance) (refusal string, ok bool) {
	why := strings.Join(append(i.Reasons, i.Possible...), "; ")
	switch {
	case i.disagreement != "":
		return i.disagreement, true
	case i.Verdict == VerdictUnknown, i.Verdict == VerdictDisplaced, i.Verdict == VerdictLost:
		return why, true
	case i.server == nil && i.domain.Nova == nil && p.Options.Selection.All:
		return "it has no Nova metadata, so --all does not select it: name it with --instance " + i.UUID, true
	}
	return "", false
}

// amount describes how much of a file is to be copied.
func amount(f FilePlan) string {
	if f.Allocated >= f.Size {
		return humanize.IBytes(uint64(f.Size))
	}
	return humanize.IBytes(uint64(f.Allocated)) + " of " + humanize.IBytes(uint64(f.Size))
}

// steps describes what a plan will do.
func (p rescuePlans) steps(todo InstancePlan) (steps []string) {
	add := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	var written []FilePlan
	for _, f := range todo.Files {
		switch {
		case f.Writable || f.Role == RoleConsoleLog && todo.Action != ActionPutBack && todo.Action != ActionLive:
			written = append(written, f)
		case f.Content != "":
			add("make %s from the domain's definition", f.Path)
		default:
			while := ""
			if todo.Process.PID != 0 {
				while = " while the guest runs"
			}
			add("put back %s (%s)%s", f.Path, amount(f), while)
		}
	}
	if p.Cloud != nil && todo.Server != nil {
		steps = append([]string{"lock it in Nova, so that its owner can't reboot or stop it during the run"}, steps...)
		defer func() { steps = append(steps, "unlock it") }()
	}
	if todo.Action == ActionLive {
		return append(steps, p.live.steps(todo, written)...)
	}
	if todo.Action == ActionReboot {
		if todo.Found == StateRunning {
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
	if todo.Action == ActionReboot {
		add("destroy the domain")
	}
	if len(written) > 0 {
		add("publish the copies with their owners and modes")
	}
	switch {
	case todo.Action == ActionPutBack:
	case p.Options.NoReboot:
		add("leave the domain off (--no-reboot)")
	case todo.Server != nil && p.Cloud != nil && todo.Found == StateRunning:
		add("hard reboot it through Nova, wait until it is ACTIVE, and check that its QEMU has the published files open")
	case todo.Server != nil && p.Cloud != nil && todo.Found == StatePaused:
		add("hard reboot it through Nova, check that its QEMU has the published files open, and pause it, as it was found")
	case todo.Found == StateRunning:
		add("start the domain and check that its QEMU has the published files open")
	case todo.Found == StatePaused:
		add("start the domain paused, as it was found, and check that its QEMU has the published files open")
	default:
		add("leave the domain off, as it was found")
	}
	return steps
}
