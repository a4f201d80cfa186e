package check

import "github.com/os-rescue/os-rescue/recover"

// findUnfinished finds interrupted runs, and among them those that left a live
// rescue half done.
func findUnfinished(c checked) []Finding {
	var found []Finding
	for _, run := range c.report.Runs {
		if run.State == recover.RunRunning {
			continue
		}
		next := "os-rescue resume " + run.Run
		var half []string
		for _, h := range run.HalfDone {
			half = append(half, called(h.Domain, h.Name))
		}
		damage := ""
		if run.Error != "" {
			damage = ": " + run.Error
		}
		if len(half) > 0 {
			found = append(found, findingf(Critical, FindingHalfDone, next, "run %s was interrupted and left a live rescue half done: %s%s",
				run.Run, few(half), damage)...)
		} else {
			found = append(found, findingf(Warning, FindingInterrupted, next, "run %s was interrupted%s", run.Run, damage)...)
		}
	}
	return found
}
