package plan

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/pin"
)

// backupPlans makes the plans of backups.
type backupPlans struct{ *planner }

// plan plans the backup of one scanned instance.
func (p backupPlans) plan(_ context.Context, i recover.Instance) (recover.InstancePlan, error) {
	todo := base(i)
	switch why := p.inHand(i.UUID); {
	case why != "":
		return todo.Refuse("%s", why), nil
	case i.Verdict == recover.VerdictUnaffected:
		todo.Action = recover.ActionNone
		return todo, nil
	case i.Verdict == recover.VerdictUnknown, i.Verdict == recover.VerdictLost, i.Verdict == recover.VerdictDisplaced && i.PID == 0:
		return todo.Refuse("%s", strings.Join(append(i.Reasons, i.Possible...), "; ")), nil
	case i.PID == 0 && i.Verdict == recover.VerdictIntact:
		return todo.Refuse("the domain is off and its files are in place: any backup tool can copy them"), nil
	}
	if err := p.backupFree(i.UUID); err != nil {
		return todo.Refuse("%v", err), nil
	}
	files := slices.DeleteFunc(slices.Clone(i.Files), func(f recover.File) bool {
		return f.Role == recover.RoleOther || len(f.Holders) == 0 && f.Role != recover.RoleDiskInfo
	})
	if reason := recover.HandsOff(i.Definition, recover.ActionBackup, pathsOf(files)); reason != "" {
		return todo.Refuse("%s", reason), nil
	}
	for _, f := range files {
		file, err := p.file(i, f)
		if err != nil {
			return todo.Refuse("%v", err), nil
		}
		todo.Files = append(todo.Files, file)
	}
	todo.Action, todo.NextStart = recover.ActionBackup, i.BeforeNextStart()
	todo.Steps = p.steps(todo)
	return todo, nil
}

// file plans the copy of one file; its error is a refusal.
func (p backupPlans) file(i recover.Instance, f recover.File) (recover.FilePlan, error) {
	file, err := p.draft(i, f)
	if err != nil || file.Content != "" {
		return file, err
	}
	src, err := pin.Open(f)
	if err != nil {
		return file, err
	}
	defer src.File.Close()
	err = p.source(i, &file, src)
	return file, err
}

// steps describes what a plan will do.
func (p backupPlans) steps(todo recover.InstancePlan) []string {
	var steps []string
	if todo.Found == recover.StateRunning && todo.Process.PID != 0 {
		steps = append(steps, "freeze the guest's file systems, if its agent answers, and suspend it")
	}
	for _, f := range todo.Files {
		stored := filepath.Join(p.Options.BackupDir, manifest.StoredName(f.Path, p.Settings.InstancesPath))
		steps = append(steps, fmt.Sprintf("copy %s to %s, compare it in full", f.Path, stored))
	}
	switch {
	case todo.Found != recover.StateRunning || todo.Process.PID == 0:
		steps = append(steps, "leave the guest "+string(todo.Found)+", as it was found")
	case p.Options.KeepPaused:
		steps = append(steps, "leave the guest paused (--keep-paused)")
	default:
		steps = append(steps, "resume the guest")
	}
	return steps
}
