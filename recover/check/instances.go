package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// findLost finds instances that have lost files, held or not.
func findLost(c checked) []Finding {
	n := c.report.Lost()
	if n == 0 {
		return nil
	}
	count := maps.Clone(c.report.Verdicts)
	count[recover.VerdictConflict] -= len(c.report.disputed())
	next := "do not stop, reboot, migrate or delete them; os-rescue --all --dry-run"
	if count[recover.VerdictRecoverable]+count[recover.VerdictConflict] == 0 {
		next = "os-rescue scan says what is still possible"
	}
	lost := []recover.Verdict{recover.VerdictLost, recover.VerdictConflict, recover.VerdictRecoverable}
	var parts, names []string
	for _, v := range lost {
		if count[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[v], v))
		}
	}
	for _, i := range c.report.Affected {
		if slices.Contains(lost, i.Verdict) && !i.IsWhole() {
			names = append(names, called(i.Domain, i.Name))
		}
	}
	return findingf(c.level(n), FindingLost, next, "%s lost files (%s): %s", c.have(n), strings.Join(parts, ", "), few(names))
}

// findForeign finds deleted files of instances that processes write which libvirt does not know.
func findForeign(c checked) []Finding {
	files := c.facts.report.Foreign
	if len(files) == 0 {
		return nil
	}
	names := make([]string, len(files))
	for n, f := range files {
		names[n] = fmt.Sprintf("%s (%s, process %d)", f.Path, f.Process, f.PID)
	}
	return findingf(Critical, FindingForeign, "do not end these processes; os-rescue scan says what helps",
		"libvirt does not know who writes %s: %s", plural(len(files), "deleted file"), few(names))
}

// findNextStart finds instances that miss no file, and that a start would give other
// files than their guests write.
func findNextStart(c checked) []Finding {
	diverging := c.report.diverging()
	var names, booted []string
	for _, i := range diverging {
		if name := called(i.Domain, i.Name); i.LacksBootFilesOnly() {
			booted = append(booted, name)
		} else {
			names = append(names, name)
		}
	}
	switch {
	case len(diverging) == 0:
		return nil
	case len(names) == 0:
		return findingf(c.level(len(booted)), FindingNextStart, "hard reboot them through Nova (os-rescue reboot), which fetches it again",
			"%s no kernel or ramdisk to start with: %s", c.have(len(booted)), few(booted))
	}
	names = append(names, booted...)
	return findingf(c.level(len(diverging)), FindingNextStart, "do not stop or reboot them; os-rescue scan says what cures it",
		"%s other files open than a start would give them: %s", c.have(len(diverging)), few(names))
}

// level is how bad trouble with so many instances is, by the thresholds.
func (c checked) level(n int) Level {
	switch {
	case n >= c.options.Critical:
		return Critical
	case n >= c.options.Warning:
		return Warning
	}
	return OK
}

// findUnknown finds instances of which it can't be said whether they have lost files. Where
// a process has a deleted file of such an instance open, or one that was overwritten, that is as
// urgent as a loss.
func findUnknown(c checked) []Finding {
	n := c.report.Verdicts[recover.VerdictUnknown]
	if n == 0 {
		return nil
	}
	level, next := Unknown, "os-rescue scan says why"
	if slices.ContainsFunc(c.report.Affected, func(i recover.Instance) bool { return hasDeletedOpen(i) || hasOverwritten(i) }) {
		level, next = Critical, "do not stop, reboot, migrate or delete them; os-rescue scan says why"
	}
	return findingf(level, FindingUnknown, next, "%d of %s could not be judged: %s",
		n, plural(c.report.Instances(), "instance"), c.names(recover.VerdictUnknown))
}

func hasDeletedOpen(i recover.Instance) bool {
	return i.Verdict == recover.VerdictUnknown && slices.ContainsFunc(slices.Concat(i.Files, i.Nameless), func(f recover.File) bool {
		return f.State == recover.FileDeleted && len(f.Holders) > 0
	})
}

func hasOverwritten(i recover.Instance) bool {
	return slices.ContainsFunc(i.Files, recover.File.Overwritten)
}

// findDisplaced finds instances with files that are not at their paths, and not lost.
func findDisplaced(c checked) []Finding {
	n := c.report.Verdicts[recover.VerdictDisplaced]
	if n == 0 {
		return nil
	}
	return findingf(Warning, FindingDisplaced, "bring the files, or the mount, back to where they belong", "%s displaced files: %s",
		c.have(n), c.names(recover.VerdictDisplaced))
}

// findSoftDeleted tells of instances that miss files and whose owners have deleted them: no
// incident.
func findSoftDeleted(c checked) []Finding {
	n := len(c.report.Guard.SoftDeleted)
	if n == 0 {
		return nil
	}
	verb := "miss"
	if n == 1 {
		verb = "misses"
	}
	return findingf(OK, FindingSoftDeleted, "", "%s that Nova has as SOFT_DELETED %s files: no incident", plural(n, "instance"), verb)
}

// findComputeID finds what keeps nova-compute from starting again. No data is at risk by it.
func findComputeID(c checked) []Finding {
	fault := c.facts.report.ComputeID
	if fault == nil {
		return nil
	}
	next := "os-rescue scan"
	if fault.Missing() {
		next = "os-rescue --all puts it back from the guard's copy"
	}
	return findingf(Warning, FindingComputeID, next, "%s", fault.Sentence())
}

// findReplaced finds instances that run on other files than they have lost, while the lost
// ones are held.
func findReplaced(c checked) []Finding {
	var disputed, names []string
	var bytes int64
	seen := map[string]bool{}
	for _, i := range c.report.Affected {
		if len(i.Superseded) > 0 {
			disputed, seen[i.UUID] = append(disputed, called(i.Domain, i.Name)), true
		}
	}
	for _, i := range c.report.Guard.Incidents {
		if i.Replaced && !seen[i.UUID] {
			names, bytes = append(names, called(i.Domain, i.Name)), bytes+i.Bytes
		}
	}
	var found []Finding
	if len(disputed) > 0 {
		found = findingf(c.level(len(disputed)), FindingReplaced, "os-rescue scan names both files, and says how to decide",
			"%s on other files than were lost, and the lost ones, which may be newer, are held: %s", runOn(len(disputed)), few(disputed))
	}
	if len(names) > 0 {
		const next = "make sure that it runs on the files that its owner wants: the deleted ones may be newer; " +
			"\"os-rescue guard release UUID\" lets them go"
		found = append(found, findingf(Warning, FindingReplaced, next, "%s on other files, and the guard still holds the deleted ones (%s): %s",
			runOn(len(names)), size(bytes), few(names))...)
	}
	return found
}

func runOn(n int) string {
	if n == 1 {
		return "1 instance runs"
	}
	return fmt.Sprintf("%d instances run", n)
}
