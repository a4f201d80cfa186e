package check

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// restartGuard is what to do about a guard that runs and does not work.
const restartGuard = "systemctl status os-rescue-guard"

// findGuard finds that the guard does not run, does not answer or does not scan.
func findGuard(c checked) []Finding {
	guard := c.facts.guard
	age := c.facts.now.Sub(cmp.Or(guard.Scanned, guard.Started)).Round(time.Second)
	switch {
	case c.facts.guardErr != nil:
		return findingf(Warning, FindingGuard, restartGuard, "the guard does not answer: %v", c.facts.guardErr)
	case !guard.Running && c.options.RequireGuard:
		return findingf(Warning, FindingGuard, "systemctl start os-rescue-guard", "no guard runs on this host")
	case !guard.Running:
	case guard.Scanned.IsZero() && age > c.options.MaxAge:
		return findingf(Warning, FindingGuard, restartGuard, "the guard was started %s ago and has not scanned this host yet", age)
	case !guard.Scanned.IsZero() && age > c.options.MaxAge:
		return findingf(Warning, FindingGuard, restartGuard, "the guard's last scan is %s old, more than %s", age, c.options.MaxAge)
	}
	return nil
}

// findGuardProblems finds what the guard itself says keeps it from its work.
func findGuardProblems(c checked) []Finding {
	problems := c.facts.guard.Problems
	if len(problems) == 0 {
		return nil
	}
	const most = 2 << 10 // bytes
	text, n := "", 0
	for ; n < len(problems) && (n == 0 || len(text)+len(problems[n]) <= most); n++ {
		text = strings.TrimPrefix(text+"; "+problems[n], "; ")
	}
	if more := len(problems) - n; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return findingf(Warning, FindingGuard, restartGuard, "the guard has %s: %s", plural(len(problems), "problem"), text)
}
