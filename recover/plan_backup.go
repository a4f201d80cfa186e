package recover

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// backup plans the backup of one scanned instance.
func (p *planner) backup(_ context.Context, i Instance) InstancePlan {
	plan := base(i)
	if p.unsettled[i.UUID] != "" {
		return plan.refuse("%s", inHand(p.unsettled[i.UUID]))
	}
	switch {
	case i.Verdict == VerdictUnaffected:
		plan.Action = ActionNone
		return plan
	case i.Verdict == VerdictUnknown, i.Verdict == VerdictDisplaced, i.Verdict == VerdictLost:
		return plan.refuse("%s", strings.Join(append(i.Reasons, i.Possible...), "; "))
	case i.PID == 0 && i.Verdict == VerdictIntact:
		return plan.refuse("the domain is off: its files are at their paths, and any backup tool can copy them")
	}
	if reason := handsOff(i.domain); reason != "" {
		return plan.refuse("%s", reason)
	}
	if err := p.backupFree(i.UUID); err != nil {
		return plan.refuse("%v", err)
	}
	for _, f := range i.Files {
		if f.Role == RoleOther || len(f.Holders) == 0 && f.Role != RoleDiskInfo {
			continue
		}
		fp, err := p.backupFile(i, f)
		if err != nil {
			return plan.refuse("%v", err)
		}
		plan.Files = append(plan.Files, fp)
	}
	plan.Action = ActionBackup
	plan.Steps = p.backupSteps(plan)
	return plan
}

// backupFree returns ErrConflict when the backup directory has something of the
// instance already: no backup is ever overwritten.
func (p *planner) backupFree(uuid string) error {
	if p.options.BackupDir == "" || p.resuming {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(p.options.BackupDir, uuid)); err == nil {
		return fmt.Errorf("%w: %s has a backup of it already, and none is overwritten: give another directory", ErrConflict, p.options.BackupDir)
	}
	return nil
}

func (p *planner) backupFile(i Instance, f File) (FilePlan, error) {
	plan, err := p.draft(i, f)
	if err != nil || plan.Content != "" {
		return plan, err
	}
	src, err := openHeld(f)
	if err != nil {
		return plan, err
	}
	defer src.File.Close()
	plan.Direct = src.Direct
	shared := *p
	shared.options.AcceptShared = true // it is only read
	err = shared.source(i, &plan, src)
	return plan, err
}

func (p *planner) backupSteps(plan InstancePlan) []string {
	var steps []string
	if plan.Found == StateRunning && plan.Process.PID != 0 {
		steps = append(steps, "freeze the guest's file systems, if its agent answers, and suspend it")
	}
	for _, f := range plan.Files {
		stored := filepath.Join(p.options.BackupDir, storedName(f.Path, p.settings.InstancesPath))
		steps = append(steps, fmt.Sprintf("copy %s to %s, compare it in full", f.Path, stored))
	}
	switch {
	case plan.Found != StateRunning || plan.Process.PID == 0:
		steps = append(steps, "leave the guest "+string(plan.Found)+", as it was found")
	case p.options.KeepPaused:
		steps = append(steps, "leave the guest paused (--keep-paused)")
	default:
		steps = append(steps, "let the guest go on")
	}
	return steps
}
