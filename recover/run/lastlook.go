package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// lastLookTime bounds what a run looks at when all is done.
const lastLookTime = 10 * time.Second

// offAfter says that the guest of an instance whose work is done is off, although it was found
// active and the run wanted it to be so; empty otherwise, and where that can't be seen.
func offAfter(ctx context.Context, r *task.Run, plan recover.InstancePlan) string {
	if plan.Found == recover.StateShutOff || plan.Found == recover.StateCrashed || plan.Process.PID == 0 ||
		r.Plan.Options.NoReboot || r.Plan.Options.Reboot.Remote {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLookTime)
	defer cancel()
	d, err := r.Hypervisor.Domain(ctx, plan.UUID)
	how := "has ended"
	switch {
	case errors.Is(err, recover.ErrNoDomain):
	case err != nil || d.State != recover.StateShutOff && d.State != recover.StateCrashed:
		return ""
	case d.Crashed:
		how = "has crashed or was killed (/var/log/libvirt/qemu/" + plan.Domain + ".log)"
	}
	next := "virsh start " + plan.Domain
	switch {
	case plan.NextStart != "":
		next = "look first at what it would start on"
	case r.Cloud != nil:
		next = "openstack server start " + plan.UUID + ", when Nova has it as SHUTOFF"
	}
	return fmt.Sprintf("it was found %s, and is off now: its QEMU %s; if it is to run: %s", plan.Found, how, next)
}

// lookAgain adds to a report which of the guests have ended since the work on them was done:
// others may have been worked on for hours.
func lookAgain(ctx context.Context, r *task.Run, report *recover.RunReport) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLookTime)
	defer cancel()
	for n := range report.Instances {
		one := &report.Instances[n]
		at := slices.IndexFunc(r.Plan.Instances, func(plan recover.InstancePlan) bool { return plan.UUID == one.UUID })
		if one.Outcome != recover.OutcomeRescued || at < 0 || ctx.Err() != nil {
			continue
		}
		if note := offAfter(ctx, r, r.Plan.Instances[at]); note != "" && !slices.Contains(one.Notes, note) {
			one.Notes = append(slices.Clip(one.Notes), note)
		}
	}
}
