package check

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/runs"
)

func kinds(r Report) []string {
	all := []string{}
	for _, f := range r.Findings {
		all = append(all, string(f.Level)+" "+string(f.Kind))
	}
	return all
}

func TestTheLevelOfACheckIsThatOfTheWorstItFound(t *testing.T) {
	now := time.Now()
	running := guard.Status{Running: true, PID: 7, Started: now.Add(-time.Hour), Scanned: now.Add(-10 * time.Second)}
	with := func(change func(g *guard.Status)) guard.Status {
		g := running
		change(&g)
		return g
	}
	down := errors.New("it is down")
	half := runs.UnfinishedRun{Run: "r2", State: recover.RunInterrupted, HalfDone: []runs.HalfDone{{Domain: "instance-1", Name: "web-1"}}}
	stopped := runs.UnfinishedRun{Run: "r3", State: recover.RunInterrupted,
		Suspended: []runs.HalfDone{{UUID: recovertest.UUID(0), Domain: "instance-0", Name: "web-0", Since: now.Add(-time.Minute)}}}
	frozen := stopped
	frozen.Suspended = []runs.HalfDone{{UUID: recovertest.UUID(0), Domain: "instance-0", Frozen: true}}
	seen := func(state recover.DomainState) recover.Report {
		r := recovertest.Scanned(recover.VerdictIntact)
		r.Instances[0].State = state
		return r
	}
	heldFile := func(inode uint64, allocated int64) recover.File {
		return recover.File{Device: 1, Inode: inode, Allocated: allocated, State: recover.FileDeleted, Holders: []recover.Holder{{PID: 1}}}
	}
	holding := recovertest.Scanned(recover.VerdictIntact, recover.VerdictIntact)
	holding.Instances[0].Files = []recover.File{heldFile(1, gibibyte), heldFile(2, gibibyte)}
	holding.Instances[1].Files = []recover.File{heldFile(1, gibibyte)} // a shared one counts once
	overwritten := recovertest.Scanned(recover.VerdictUnknown)
	overwritten.Instances[0].Files = []recover.File{{State: recover.FileUnknown, Remedy: recover.RemedyRestore}}
	diverging := recovertest.Scanned(recover.VerdictConflict)
	diverging.Instances[0].NextStart = []recover.Divergence{{Target: "vda", Open: "/i/disk.snap", Next: "/i/disk", Writable: true}}

	bootless := recovertest.Scanned(recover.VerdictConflict)
	kernel := "/i/" + bootless.Instances[0].UUID + "/kernel"
	bootless.Instances[0].NextStart = []recover.Divergence{{Target: "kernel", Next: kernel, By: []recover.Starter{recover.StarterLibvirt}}}

	superseded := recovertest.Scanned(recover.VerdictConflict)
	superseded.Instances[0].Superseded = []recover.File{{Path: "/i/disk", Device: 1, Inode: 7}}
	bothWays := with(func(g *guard.Status) {
		g.Report, g.Incidents = superseded, []guard.Incident{{UUID: recovertest.UUID(0), Domain: "instance-0", Replaced: true}}
	})

	for name, c := range map[string]struct {
		facts checkFacts
		o     Options
		level Level
		kinds string
		says  string // in the first finding
	}{
		"an empty host": {checkFacts{}, Options{}, OK, "", ""},
		"all intact": {
			checkFacts{report: recovertest.Scanned(recover.VerdictIntact, recover.VerdictUnaffected)}, Options{},
			OK, "",
			"",
		},
		"a kernel that Nova fetches again": {
			checkFacts{report: bootless}, Options{},
			Critical, "CRITICAL next-start",
			"1 of 1 instance has no kernel or ramdisk to start with: instance-0 (web-0)",
		},
		"recoverable": {
			checkFacts{report: recovertest.Scanned(recover.VerdictRecoverable, recover.VerdictIntact)}, Options{},
			Critical, "CRITICAL lost",
			"1 of 2 instances has lost files (1 recoverable): instance-0 (web-0)",
		},
		"on an older copy, the keeper has the lost disk": {
			checkFacts{report: superseded}, Options{}, Critical, "CRITICAL replaced",
			"1 instance runs on other files than were lost, and the lost ones, which may be newer, are held: instance-0",
		},
		"the same, and the guard says so too": {
			checkFacts{report: superseded, guard: bothWays, source: SourceGuard}, Options{}, Critical, "CRITICAL replaced", "which may be newer",
		},
		"lost": {
			checkFacts{report: recovertest.Scanned(recover.VerdictLost)}, Options{},
			Critical, "CRITICAL lost",
			"1 of 1 instance has lost files (1 lost)",
		},
		"conflict": {
			checkFacts{report: recovertest.Scanned(recover.VerdictConflict)}, Options{},
			Critical, "CRITICAL lost",
			"(1 conflict)",
		},
		"one that would start on another file": {
			checkFacts{report: diverging}, Options{},
			Critical, "CRITICAL next-start",
			"1 of 1 instance has other files open than a start would give them: instance-0 (web-0)",
		},
		"the three, and who they are": {
			checkFacts{
				report: recovertest.Scanned(
					recover.VerdictRecoverable, recover.VerdictConflict, recover.VerdictLost, recover.VerdictRecoverable),
			},
			Options{},
			Critical, "CRITICAL lost",
			"4 of 4 instances have lost files (1 lost, 1 conflict, 2 recoverable): " +
				"instance-2 (web-2), instance-1 (web-1), instance-0 (web-0), 1 more",
		},
		"below the critical number": {
			checkFacts{report: recovertest.Scanned(recover.VerdictLost, recover.VerdictLost)}, Options{Warning: 2, Critical: 3},
			Warning, "WARNING lost",
			"",
		},
		"at the critical number": {
			checkFacts{report: recovertest.Scanned(recover.VerdictLost, recover.VerdictLost, recover.VerdictRecoverable)},
			Options{Warning: 2, Critical: 3},
			Critical, "CRITICAL lost",
			"",
		},
		"below both": {
			checkFacts{report: recovertest.Scanned(recover.VerdictLost)}, Options{Warning: 2, Critical: 3},
			OK, "OK lost",
			"",
		},
		"displaced": {
			checkFacts{report: recovertest.Scanned(recover.VerdictDisplaced)}, Options{},
			Warning, "WARNING displaced",
			"",
		},
		"one that can't be judged": {
			checkFacts{report: recovertest.Scanned(recover.VerdictUnknown, recover.VerdictDisplaced)}, Options{},
			Unknown, "UNKNOWN unknown, WARNING displaced",
			"1 of 2 instances could not be judged: instance-0 (web-0)",
		},
		"one whose disk was overwritten": {
			checkFacts{report: overwritten}, Options{},
			Critical, "CRITICAL unknown",
			"1 of 1 instance could not be judged: instance-0 (web-0)",
		},
		"unknown comes before a warning": {
			checkFacts{
				report: recovertest.Scanned(recover.VerdictUnknown),
				runs:   []runs.UnfinishedRun{{Run: "r1", State: recover.RunInterrupted}},
			},
			Options{},
			Unknown, "UNKNOWN unknown, WARNING interrupted",
			"",
		},
		"unknown hides no critical": {
			checkFacts{report: recovertest.Scanned(recover.VerdictUnknown, recover.VerdictDisplaced, recover.VerdictRecoverable)}, Options{},
			Critical, "CRITICAL lost, UNKNOWN unknown, WARNING displaced",
			"",
		},
		"libvirt is down": {
			checkFacts{source: "-", scanErr: down}, Options{},
			Unknown, "UNKNOWN not-looked",
			"this host could not be scanned: it is down",
		},
		"the runs can't be read": {
			checkFacts{runsErr: down}, Options{},
			Unknown, "UNKNOWN not-looked",
			"the runs could not be read",
		},
		"the keeper is stopped, and one of another state directory": {
			checkFacts{keeper: pin.KeeperStatus{Others: []pin.OtherKeeper{{PID: 7, Own: true, Silent: true}, {PID: 8, Silent: true}}}}, Options{},
			Unknown, "UNKNOWN not-looked",
			"the keeper (process 7) does not answer: it is stopped, or hangs",
		},
		"the keeper can't be asked": {
			checkFacts{keeperErr: down}, Options{},
			Unknown, "UNKNOWN not-looked",
			"the keeper could not be asked",
		},
		"an interrupted run": {
			checkFacts{runs: []runs.UnfinishedRun{{Run: "r1", State: recover.RunInterrupted, Error: "torn"}}}, Options{},
			Warning, "WARNING interrupted",
			"run r1 was interrupted: torn",
		},
		"a run that is being undone": {
			checkFacts{runs: []runs.UnfinishedRun{{Run: "r1", State: recover.RunUndoing}}}, Options{},
			Warning, "WARNING interrupted",
			"",
		},
		"a run under way": {
			checkFacts{runs: []runs.UnfinishedRun{{Run: "r1", State: recover.RunRunning}}}, Options{},
			OK, "",
			"",
		},
		"a live rescue half done": {
			checkFacts{runs: []runs.UnfinishedRun{half, {Run: "r1", State: recover.RunInterrupted}}}, Options{},
			Critical, "CRITICAL half-done, WARNING interrupted",
			"run r2 was interrupted and left a live rescue half done: instance-1 (web-1)",
		},
		"a guest that a killed run left suspended": {
			checkFacts{report: seen(recover.StatePaused), scanned: now, runs: []runs.UnfinishedRun{stopped}}, Options{},
			Critical, "CRITICAL suspended",
			"run r3 was interrupted and left guests suspended or frozen: instance-0 (web-0)",
		},
		"one that was seen to run before": {
			checkFacts{report: seen(recover.StateRunning), scanned: now.Add(-time.Hour), runs: []runs.UnfinishedRun{stopped}}, Options{},
			Critical, "CRITICAL suspended", "",
		},
		"one that was let go on": {
			checkFacts{report: seen(recover.StateRunning), scanned: now, runs: []runs.UnfinishedRun{stopped}}, Options{},
			Warning, "WARNING interrupted", "",
		},
		"one that has ended": {
			checkFacts{report: seen(recover.StateShutOff), scanned: now, runs: []runs.UnfinishedRun{stopped}}, Options{},
			Warning, "WARNING interrupted", "",
		},
		"one that nobody can look at": {
			checkFacts{source: "-", scanErr: down, runs: []runs.UnfinishedRun{stopped}}, Options{},
			Critical, "CRITICAL suspended, UNKNOWN not-looked", "",
		},
		"one that may be frozen, and runs": {
			checkFacts{report: seen(recover.StateRunning), scanned: now, runs: []runs.UnfinishedRun{frozen}}, Options{},
			Critical, "CRITICAL suspended", "",
		},
		"half done although libvirt is down": {
			checkFacts{source: "-", scanErr: down, runs: []runs.UnfinishedRun{half}}, Options{},
			Critical, "CRITICAL half-done, UNKNOWN not-looked",
			"",
		},
		"no guard":          {checkFacts{}, Options{RequireGuard: true}, Warning, "WARNING guard", "no guard runs"},
		"a guard, required": {checkFacts{guard: running}, Options{RequireGuard: true}, OK, "", ""},
		"a guard that does not answer": {
			checkFacts{guardErr: down}, Options{},
			Warning, "WARNING guard",
			"the guard does not answer: it is down",
		},
		"a guard with problems": {
			checkFacts{guard: with(func(g *guard.Status) { g.Problems = []string{"Nova is away", "x"} })}, Options{},
			Warning, "WARNING guard",
			"the guard has 2 problems: Nova is away; x",
		},
		"a guard whose scan is old": {
			checkFacts{guard: with(func(g *guard.Status) { g.Scanned = now.Add(-6 * time.Minute) })}, Options{},
			Warning, "WARNING guard",
			"the guard's last scan is 6m0s old, more than 5m0s",
		},
		"the same, and that is old enough": {
			checkFacts{guard: with(func(g *guard.Status) { g.Scanned = now.Add(-6 * time.Minute) })}, Options{MaxAge: time.Hour},
			OK, "",
			"",
		},
		"a guard that has just begun": {
			checkFacts{guard: guard.Status{Running: true, Started: now}}, Options{},
			OK, "",
			"",
		},
		"a guard that never scans": {
			checkFacts{guard: guard.Status{Running: true, Started: now.Add(-time.Hour)}}, Options{},
			Warning, "WARNING guard",
			"has not scanned this host yet",
		},
		"an instance on other files": {
			checkFacts{guard: with(func(g *guard.Status) { g.Incidents = []guard.Incident{{Domain: "d", Bytes: gibibyte, Replaced: true}} })},
			Options{},
			Warning, "WARNING replaced",
			"1 instance runs on other files, and the guard still holds the deleted ones (1.0 GiB): d",
		},
		"a guest that libvirt does not know": {
			checkFacts{report: recover.Report{Foreign: []recover.Foreign{{Path: "/i/u/disk", PID: 7, Process: "qemu-system-x86"}}}}, Options{},
			Critical, "CRITICAL foreign",
			"libvirt does not know who writes 1 deleted file: /i/u/disk (qemu-system-x86, process 7)",
		},
		"a compute_id that is missing, and all is intact": {
			checkFacts{report: recover.Report{ComputeID: &recover.ComputeIDFault{Path: "/n/compute_id", UUID: "u"}}}, Options{},
			Warning, "WARNING compute-id",
			"/n/compute_id is missing",
		},
		"a compute_id that is another one": {
			checkFacts{report: recover.Report{ComputeID: &recover.ComputeIDFault{Problem: "/n/compute_id holds v"}}}, Options{},
			Warning, "WARNING compute-id",
			"/n/compute_id holds v",
		},
		"held, no limit":     {checkFacts{report: holding}, Options{}, OK, "", ""},
		"held, at the limit": {checkFacts{report: holding}, Options{WarningHeld: 2 * gibibyte}, OK, "", ""},
		"held, over the warning": {
			checkFacts{report: holding}, Options{WarningHeld: gibibyte, CriticalHeld: 2 * gibibyte},
			Warning, "WARNING held",
			"deleted files that are still open (2) take 2.0 GiB, more than 1.0 GiB",
		},
		"held, over the critical": {
			checkFacts{report: holding}, Options{WarningHeld: 1, CriticalHeld: gibibyte},
			Critical, "CRITICAL held",
			"",
		},
		"held by the keeper too, the same one": {
			checkFacts{report: holding, keeper: pin.KeeperStatus{Holds: []pin.KeeperHold{{Key: "1:1", Allocated: gibibyte}}}},
			Options{WarningHeld: 2 * gibibyte},
			OK, "",
			"",
		},
		"held by the keeper alone": {
			checkFacts{keeper: pin.KeeperStatus{Holds: []pin.KeeperHold{{Key: "1:9", Allocated: gibibyte}}}}, Options{WarningHeld: 1},
			Warning, "WARNING held",
			"",
		},
		"held by the guard alone": {
			checkFacts{guard: with(func(g *guard.Status) { g.Held = guard.Held{DeletedFiles: 3, DeletedBytes: 3 * gibibyte} })},
			Options{WarningHeld: 2 * gibibyte},
			Warning, "WARNING held",
			"(3)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			recovertest.Must(t, c.o.complete())
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
				if f.Level != OK && f.Next == "" {
					t.Errorf("nothing to do about %q", f.Text)
				}
			}
			if c.facts.source == "" && (r.Verdicts != nil || r.Held != nil) {
				t.Errorf("nobody looked, and there are %v and %v", r.Verdicts, r.Held)
			}
			if c.facts.source != "" && len(r.Verdicts) != len(recover.Verdicts()) {
				t.Errorf("the verdicts are %v", r.Verdicts)
			}
		})
	}
}
