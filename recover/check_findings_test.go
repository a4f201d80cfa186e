package recover

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func kinds(r CheckReport) []string {
	all := []string{}
	for _, f := range r.Findings {
		all = append(all, string(f.Level)+" "+string(f.Kind))
	}
	return all
}

func TestTheLevelOfACheckIsThatOfTheWorstItFound(t *testing.T) {
	now := time.Now()
	running := GuardStatus{Running: true, PID: 7, Started: now.Add(-time.Hour), Scanned: now.Add(-10 * time.Second)}
	with := func(change func(g *GuardStatus)) GuardStatus {
		g := running
		change(&g)
		return g
	}
	down := errors.New("it is down")
	half := UnfinishedRun{Run: "r2", State: RunInterrupted, HalfDone: []HalfDone{{Domain: "instance-1", Name: "web-1"}}}
	heldFile := func(inode uint64, allocated int64) File {
		return File{Device: 1, Inode: inode, Allocated: allocated, State: FileDeleted, Holders: []Holder{{PID: 1}}}
	}
	holding := verdicts(VerdictIntact, VerdictIntact)
	holding.Instances[0].Files = []File{heldFile(1, gibibyte), heldFile(2, gibibyte)}
	holding.Instances[1].Files = []File{heldFile(1, gibibyte)} // a shared one counts once

	for name, c := range map[string]struct {
		facts checkFacts
		o     CheckOptions
		level CheckLevel
		kinds string
		says  string // in the first finding
	}{
		"an empty host": {checkFacts{}, CheckOptions{}, CheckOK, "", ""},
		"all intact": {
			checkFacts{report: verdicts(VerdictIntact, VerdictUnaffected)}, CheckOptions{},
			CheckOK, "",
			"",
		},
		"recoverable": {
			checkFacts{report: verdicts(VerdictRecoverable, VerdictIntact)}, CheckOptions{},
			CheckCritical, "CRITICAL lost",
			"1 of 2 instances has lost files (1 recoverable): instance-0 (web-0)",
		},
		"lost": {
			checkFacts{report: verdicts(VerdictLost)}, CheckOptions{},
			CheckCritical, "CRITICAL lost",
			"1 of 1 instance has lost files (1 lost)",
		},
		"conflict": {
			checkFacts{report: verdicts(VerdictConflict)}, CheckOptions{},
			CheckCritical, "CRITICAL lost",
			"(1 conflict)",
		},
		"the three, and who they are": {
			checkFacts{report: verdicts(VerdictRecoverable, VerdictConflict, VerdictLost, VerdictRecoverable)}, CheckOptions{},
			CheckCritical, "CRITICAL lost",
			"4 of 4 instances have lost files (1 lost, 1 conflict, 2 recoverable): " +
				"instance-2 (web-2), instance-1 (web-1), instance-0 (web-0), 1 more",
		},
		"below the critical number": {
			checkFacts{report: verdicts(VerdictLost, VerdictLost)}, CheckOptions{Warning: 2, Critical: 3},
			CheckWarning, "WARNING lost",
			"",
		},
		"at the critical number": {
			checkFacts{report: verdicts(VerdictLost, VerdictLost, VerdictRecoverable)}, CheckOptions{Warning: 2, Critical: 3},
			CheckCritical, "CRITICAL lost",
			"",
		},
		"below both": {
			checkFacts{report: verdicts(VerdictLost)}, CheckOptions{Warning: 2, Critical: 3},
			CheckOK, "OK lost",
			"",
		},
		"displaced": {
			checkFacts{report: verdicts(VerdictDisplaced)}, CheckOptions{},
			CheckWarning, "WARNING displaced",
			"",
		},
		"one that can't be looked at": {
			checkFacts{report: verdicts(VerdictUnknown, VerdictDisplaced)}, CheckOptions{},
			CheckUnknown, "UNKNOWN unknown, WARNING displaced",
			"1 of 2 instances could not be looked at: instance-0 (web-0)",
		},
		"unknown comes before a warning": {
			checkFacts{report: verdicts(VerdictUnknown), runs: []UnfinishedRun{{Run: "r1", State: RunInterrupted}}}, CheckOptions{},
			CheckUnknown, "UNKNOWN unknown, WARNING interrupted",
			"",
		},
		"unknown hides no critical": {
			checkFacts{report: verdicts(VerdictUnknown, VerdictDisplaced, VerdictRecoverable)}, CheckOptions{},
			CheckCritical, "CRITICAL lost, UNKNOWN unknown, WARNING displaced",
			"",
		},
		"libvirt is down": {
			checkFacts{source: "-", scanErr: down}, CheckOptions{},
			CheckUnknown, "UNKNOWN not-looked",
			"this host could not be scanned: it is down",
		},
		"the runs can't be read": {
			checkFacts{runsErr: down}, CheckOptions{},
			CheckUnknown, "UNKNOWN not-looked",
			"the runs could not be read",
		},
		"the keeper can't be asked": {
			checkFacts{keeperErr: down}, CheckOptions{},
			CheckUnknown, "UNKNOWN not-looked",
			"the keeper could not be asked",
		},
		"an interrupted run": {
			checkFacts{runs: []UnfinishedRun{{Run: "r1", State: RunInterrupted, Error: "torn"}}}, CheckOptions{},
			CheckWarning, "WARNING interrupted",
			"run r1 was interrupted: torn",
		},
		"a run that is being undone": {
			checkFacts{runs: []UnfinishedRun{{Run: "r1", State: RunUndoing}}}, CheckOptions{},
			CheckWarning, "WARNING interrupted",
			"",
		},
		"a run under way": {
			checkFacts{runs: []UnfinishedRun{{Run: "r1", State: RunRunning}}}, CheckOptions{},
			CheckOK, "",
			"",
		},
		"a live rescue half done": {
			checkFacts{runs: []UnfinishedRun{half, {Run: "r1", State: RunInterrupted}}}, CheckOptions{},
			CheckCritical, "CRITICAL half-done, WARNING interrupted",
			"run r2 was interrupted and left a live rescue half done: instance-1 (web-1)",
		},
		"half done although libvirt is down": {
			checkFacts{source: "-", scanErr: down, runs: []UnfinishedRun{half}}, CheckOptions{},
			CheckCritical, "CRITICAL half-done, UNKNOWN not-looked",
			"",
		},
		"no guard":          {checkFacts{}, CheckOptions{RequireGuard: true}, CheckWarning, "WARNING guard", "no guard runs"},
		"a guard, required": {checkFacts{guard: running}, CheckOptions{RequireGuard: true}, CheckOK, "", ""},
		"a guard that does not answer": {
			checkFacts{guardErr: down}, CheckOptions{},
			CheckWarning, "WARNING guard",
			"the guard does not answer: it is down",
		},
		"a guard with problems": {
			checkFacts{guard: with(func(g *GuardStatus) { g.Problems = []string{"Nova is away", "x"} })}, CheckOptions{},
			CheckWarning, "WARNING guard",
			"the guard has 2 problems: Nova is away; x",
		},
		"a guard whose scan is old": {
			checkFacts{guard: with(func(g *GuardStatus) { g.Scanned = now.Add(-6 * time.Minute) })}, CheckOptions{},
			CheckWarning, "WARNING guard",
			"the guard's last scan is 6m0s old, more than 5m0s",
		},
		"the same, and that is old enough": {
			checkFacts{guard: with(func(g *GuardStatus) { g.Scanned = now.Add(-6 * time.Minute) })}, CheckOptions{MaxAge: time.Hour},
			CheckOK, "",
			"",
		},
		"a guard that has just begun": {
			checkFacts{guard: GuardStatus{Running: true, Started: now}}, CheckOptions{},
			CheckOK, "",
			"",
		},
		"a guard that never scans": {
			checkFacts{guard: GuardStatus{Running: true, Started: now.Add(-time.Hour)}}, CheckOptions{},
			CheckWarning, "WARNING guard",
			"has not scanned this host yet",
		},
		"an instance on other files": {
			checkFacts{guard: with(func(g *GuardStatus) { g.Incidents = []Incident{{Domain: "d", Bytes: gibibyte, Replaced: true}} })},
			CheckOptions{},
			CheckWarning, "WARNING replaced",
			"1 instance runs on other files, and the guard still holds the deleted ones (1.0 GiB): d",
		},
		"held, no limit":     {checkFacts{report: holding}, CheckOptions{}, CheckOK, "", ""},
		"held, at the limit": {checkFacts{report: holding}, CheckOptions{WarningHeld: 2 * gibibyte}, CheckOK, "", ""},
		"held, over the warning": {
			checkFacts{report: holding}, CheckOptions{WarningHeld: gibibyte, CriticalHeld: 2 * gibibyte},
			CheckWarning, "WARNING held",
			"deleted files that are still open (2) take 2.0 GiB, more than 1.0 GiB",
		},
		"held, over the critical": {
			checkFacts{report: holding}, CheckOptions{WarningHeld: 1, CriticalHeld: gibibyte},
			CheckCritical, "CRITICAL held",
			"",
		},
		"held by the keeper too, the same one": {
			checkFacts{report: holding, keeper: KeeperStatus{Holds: []KeeperHold{{Key: "1:1", Allocated: gibibyte}}}},
			CheckOptions{WarningHeld: 2 * gibibyte},
			CheckOK, "",
			"",
		},
		"held by the keeper alone": {
			checkFacts{keeper: KeeperStatus{Holds: []KeeperHold{{Key: "1:9", Allocated: gibibyte}}}}, CheckOptions{WarningHeld: 1},
			CheckWarning, "WARNING held",
			"",
		},
		"held by the guard alone": {
			checkFacts{guard: with(func(g *GuardStatus) { g.Held = GuardHeld{DeletedFiles: 3, DeletedBytes: 3 * gibibyte} })},
			CheckOptions{WarningHeld: 2 * gibibyte},
			CheckWarning, "WARNING held",
			"(3)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, c.o.complete())
			c.facts.now = now
			switch c.facts.source {
			case "":
				c.facts.source = SourceScan
			case "-":
				c.facts.source = ""
			}
			r := c.facts.sum(c.o)
			if r.Level != c.level || strings.Join(kinds(r), ", ") != c.kinds {
				t.Fatalf("%s %v", r.Level, r.Findings)
			}
			if c.says != "" && !strings.Contains(r.Findings[0].Text, c.says) {
				t.Errorf("it says %q", r.Findings[0].Text)
			}
			for _, f := range r.Findings {
				if f.Level != CheckOK && f.Next == "" {
					t.Errorf("nothing to do about %q", f.Text)
				}
			}
			if c.facts.source == "" && (r.Verdicts != nil || r.Held != nil) {
				t.Errorf("nobody looked, and there are %v and %v", r.Verdicts, r.Held)
			}
			if c.facts.source != "" && len(r.Verdicts) != len(Verdicts()) {
				t.Errorf("the verdicts are %v", r.Verdicts)
			}
		})
	}
}
