package check

import (
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/runs"
)

// findUnfinished finds interrupted runs, and among them those that left a live
// rescue half done, or a guest suspended.
func findUnfinished(c checked) []Finding {
	var found []Finding
	for _, run := range c.report.Runs {
		if run.State == recover.RunRunning {
			continue
		}
		next := "os-rescue resume " + run.Run
		damage := ""
		if run.Error != "" {
			damage = ": " + run.Error
		}
		before := len(found)
		if half := run.HalfDone; len(half) > 0 {
			found = append(found, findingf(Critical, FindingHalfDone, next, "run %s was interrupted and left a live rescue half done: %s%s",
				run.Run, few(calledAll(half)), damage)...)
		}
		if stopped := slices.DeleteFunc(slices.Clone(run.Suspended), c.goesOn); len(stopped) > 0 {
			found = append(found, findingf(Critical, FindingSuspended, next, "run %s was interrupted and left guests suspended or frozen: %s%s",
				run.Run, few(calledAll(stopped)), damage)...)
		}
		if len(found) == before {
			found = append(found, findingf(Warning, FindingInterrupted, next, "run %s was interrupted%s", run.Run, damage)...)
		}
	}
	return found
}

// goesOn is true when a guest that a run had suspended does not stand still any more: it was
// let go on, or has ended. What a frozen guest does can't be seen, and nothing is known of one
// that nobody has looked at.
func (c checked) goesOn(h runs.HalfDone) bool {
	n := slices.IndexFunc(c.facts.report.Instances, func(i recover.Instance) bool { return i.UUID == h.UUID })
	if n < 0 || c.facts.scanned.Before(h.Since) {
		return false
	}
	switch state := c.facts.report.Instances[n].State; state {
	case recover.StateShutOff, recover.StateCrashed:
		return true
	default:
		return state == recover.StateRunning && !h.Frozen
	}
}

func calledAll(instances []runs.HalfDone) []string {
	names := make([]string, len(instances))
	for n, h := range instances {
		names[n] = called(h.Domain, h.Name)
	}
	return names
}
