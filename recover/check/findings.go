package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/os-rescue/os-rescue/recover"
)

// checked is what a finder looks at: the facts, the thresholds, and the report
// with its counts, which has no findings yet.
type checked struct {
	facts   checkFacts
	options Options
	report  Report
}

// A finder looks for one kind of trouble.
type finder func(checked) []Finding

// finders returns all of them. Findings of one level come in this order.
func finders() []finder {
	return []finder{
		findNotLooked, findLost, findForeign, findNextStart, findUnfinished, findUnknown, findDisplaced, findReplaced, findComputeID,
		findHeld, findGuard, findGuardProblems, findSoftDeleted,
	}
}

// findingf makes the result of a finder that found something.
func findingf(level Level, kind FindingKind, next, format string, args ...any) []Finding {
	return []Finding{{Level: level, Kind: kind, Text: fmt.Sprintf(format, args...), Next: next}}
}

// findNotLooked finds the parts of the check that could not be made: each may hide
// anything.
func findNotLooked(c checked) []Finding {
	found := slices.Concat(
		unlessNil(c.facts.scanErr, "os-rescue scan", "this host could not be scanned"),
		unlessNil(c.facts.runsErr, "os-rescue status", "the runs could not be read"),
		unlessNil(c.facts.keeperErr, "os-rescue status", "the keeper could not be asked"))
	for _, k := range c.facts.keeper.Others {
		if k.Own && k.Silent {
			found = append(found, findingf(Unknown, FindingNotLooked, fmt.Sprintf("kill -CONT %d", k.PID),
				"the keeper (process %d) does not answer: it is stopped, or hangs", k.PID)...)
		}
	}
	return found
}

func unlessNil(err error, next, text string) []Finding {
	if err == nil {
		return nil
	}
	return findingf(Unknown, FindingNotLooked, next, "%s: %v", text, err)
}

// The words of findings.

// have says how many of the host's instances have something.
func (c checked) have(n int) string {
	verb := "have"
	if n == 1 {
		verb = "has"
	}
	return fmt.Sprintf("%d of %s %s", n, plural(c.report.Instances(), "instance"), verb)
}

// names names the affected instances of some verdicts.
func (c checked) names(verdicts ...recover.Verdict) string {
	var names []string
	for _, i := range c.report.Affected {
		if slices.Contains(verdicts, i.Verdict) {
			names = append(names, called(i.Domain, i.Name))
		}
	}
	return few(names)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// called names an instance in the middle of a sentence.
func called(domain, name string) string {
	if name == "" {
		return domain
	}
	return domain + " (" + name + ")"
}

// few names some, for a line that must stay short.
func few(names []string) string {
	const most = 3
	if more := len(names) - most; more > 0 {
		names = append(names[:most:most], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) }
