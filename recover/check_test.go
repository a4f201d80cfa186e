package recover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const gibibyte = 1 << 30

// verdicts makes a report with an instance of each verdict.
func verdicts(all ...Verdict) Report {
	r := Report{Host: "node", Taken: time.Now()}
	for n, v := range all {
		r.Instances = append(r.Instances, Instance{UUID: testUUID(n), Domain: fmt.Sprintf("instance-%d", n), Name: fmt.Sprintf("web-%d", n), Verdict: v})
	}
	return r
}

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
		"an empty host":                        {checkFacts{}, CheckOptions{}, CheckOK, "", ""},
		"all intact":                           {checkFacts{report: verdicts(VerdictIntact, VerdictUnaffected)}, CheckOptions{}, CheckOK, "", ""},
		"recoverable":                          {checkFacts{report: verdicts(VerdictRecoverable, VerdictIntact)}, CheckOptions{}, CheckCritical, "CRITICAL lost", "1 of 2 instances has lost files (1 recoverable): instance-0 (web-0)"},
		"lost":                                 {checkFacts{report: verdicts(VerdictLost)}, CheckOptions{}, CheckCritical, "CRITICAL lost", "1 of 1 instance has lost files (1 lost)"},
		"conflict":                             {checkFacts{report: verdicts(VerdictConflict)}, CheckOptions{}, CheckCritical, "CRITICAL lost", "(1 conflict)"},
		"the three, and who they are":          {checkFacts{report: verdicts(VerdictRecoverable, VerdictConflict, VerdictLost, VerdictRecoverable)}, CheckOptions{}, CheckCritical, "CRITICAL lost", "4 of 4 instances have lost files (1 lost, 1 conflict, 2 recoverable): instance-2 (web-2), instance-1 (web-1), instance-0 (web-0), 1 more"},
		"below the critical number":            {checkFacts{report: verdicts(VerdictLost, VerdictLost)}, CheckOptions{Warning: 2, Critical: 3}, CheckWarning, "WARNING lost", ""},
		"at the critical number":               {checkFacts{report: verdicts(VerdictLost, VerdictLost, VerdictRecoverable)}, CheckOptions{Warning: 2, Critical: 3}, CheckCritical, "CRITICAL lost", ""},
		"below both":                           {checkFacts{report: verdicts(VerdictLost)}, CheckOptions{Warning: 2, Critical: 3}, CheckOK, "OK lost", ""},
		"displaced":                            {checkFacts{report: verdicts(VerdictDisplaced)}, CheckOptions{}, CheckWarning, "WARNING displaced", ""},
		"one that can't be looked at":          {checkFacts{report: verdicts(VerdictUnknown, VerdictDisplaced)}, CheckOptions{}, CheckUnknown, "UNKNOWN unknown, WARNING displaced", "1 of 2 instances could not be looked at: instance-0 (web-0)"},
		"unknown comes before a warning":       {checkFacts{report: verdicts(VerdictUnknown), runs: []UnfinishedRun{{Run: "r1", State: RunInterrupted}}}, CheckOptions{}, CheckUnknown, "UNKNOWN unknown, WARNING interrupted", ""},
		"unknown hides no critical":            {checkFacts{report: verdicts(VerdictUnknown, VerdictDisplaced, VerdictRecoverable)}, CheckOptions{}, CheckCritical, "CRITICAL lost, UNKNOWN unknown, WARNING displaced", ""},
		"libvirt is down":                      {checkFacts{source: "-", scanErr: down}, CheckOptions{}, CheckUnknown, "UNKNOWN not-looked", "this host could not be scanned: it is down"},
		"the runs can't be read":               {checkFacts{runsErr: down}, CheckOptions{}, CheckUnknown, "UNKNOWN not-looked", "the runs could not be read"},
		"the keeper can't be asked":            {checkFacts{keeperErr: down}, CheckOptions{}, CheckUnknown, "UNKNOWN not-looked", "the keeper could not be asked"},
		"an interrupted run":                   {checkFacts{runs: []UnfinishedRun{{Run: "r1", State: RunInterrupted, Error: "torn"}}}, CheckOptions{}, CheckWarning, "WARNING interrupted", "run r1 was interrupted: torn"},
		"a run that is being undone":           {checkFacts{runs: []UnfinishedRun{{Run: "r1", State: RunUndoing}}}, CheckOptions{}, CheckWarning, "WARNING interrupted", ""},
		"a run under way":                      {checkFacts{runs: []UnfinishedRun{{Run: "r1", State: RunRunning}}}, CheckOptions{}, CheckOK, "", ""},
		"a live rescue half done":              {checkFacts{runs: []UnfinishedRun{half, {Run: "r1", State: RunInterrupted}}}, CheckOptions{}, CheckCritical, "CRITICAL half-done, WARNING interrupted", "run r2 was interrupted and left a live rescue half done: instance-1 (web-1)"},
		"half done although libvirt is down":   {checkFacts{source: "-", scanErr: down, runs: []UnfinishedRun{half}}, CheckOptions{}, CheckCritical, "CRITICAL half-done, UNKNOWN not-looked", ""},
		"no guard":                             {checkFacts{}, CheckOptions{RequireGuard: true}, CheckWarning, "WARNING guard", "no guard runs"},
		"a guard, required":                    {checkFacts{guard: running}, CheckOptions{RequireGuard: true}, CheckOK, "", ""},
		"a guard that does not answer":         {checkFacts{guardErr: down}, CheckOptions{}, CheckWarning, "WARNING guard", "the guard does not answer: it is down"},
		"a guard with problems":                {checkFacts{guard: with(func(g *GuardStatus) { g.Problems = []string{"Nova is away", "x"} })}, CheckOptions{}, CheckWarning, "WARNING guard", "the guard has 2 problems: Nova is away; x"},
		"a guard whose scan is old":            {checkFacts{guard: with(func(g *GuardStatus) { g.Scanned = now.Add(-6 * time.Minute) })}, CheckOptions{}, CheckWarning, "WARNING guard", "the guard's last scan is 6m0s old, more than 5m0s"},
		"the same, and that is old enough":     {checkFacts{guard: with(func(g *GuardStatus) { g.Scanned = now.Add(-6 * time.Minute) })}, CheckOptions{MaxAge: time.Hour}, CheckOK, "", ""},
		"a guard that has just begun":          {checkFacts{guard: GuardStatus{Running: true, Started: now}}, CheckOptions{}, CheckOK, "", ""},
		"a guard that never scans":             {checkFacts{guard: GuardStatus{Running: true, Started: now.Add(-time.Hour)}}, CheckOptions{}, CheckWarning, "WARNING guard", "has not scanned this host yet"},
		"an instance on other files":           {checkFacts{guard: with(func(g *GuardStatus) { g.Incidents = []Incident{{Domain: "d", Bytes: gibibyte, Replaced: true}} })}, CheckOptions{}, CheckWarning, "WARNING replaced", "1 instance runs on other files, and the guard still holds the deleted ones (1.0 GiB): d"},
		"held, no limit":                       {checkFacts{report: holding}, CheckOptions{}, CheckOK, "", ""},
		"held, at the limit":                   {checkFacts{report: holding}, CheckOptions{WarningHeld: 2 * gibibyte}, CheckOK, "", ""},
		"held, over the warning":               {checkFacts{report: holding}, CheckOptions{WarningHeld: gibibyte, CriticalHeld: 2 * gibibyte}, CheckWarning, "WARNING held", "deleted files that are still open (2) take 2.0 GiB, more than 1.0 GiB"},
		"held, over the critical":              {checkFacts{report: holding}, CheckOptions{WarningHeld: 1, CriticalHeld: gibibyte}, CheckCritical, "CRITICAL held", ""},
		"held by the keeper too, the same one": {checkFacts{report: holding, keeper: KeeperStatus{Holds: []KeeperHold{{Key: "1:1", Allocated: gibibyte}}}}, CheckOptions{WarningHeld: 2 * gibibyte}, CheckOK, "", ""},
		"held by the keeper alone":             {checkFacts{keeper: KeeperStatus{Holds: []KeeperHold{{Key: "1:9", Allocated: gibibyte}}}}, CheckOptions{WarningHeld: 1}, CheckWarning, "WARNING held", ""},
		"held by the guard alone":              {checkFacts{guard: with(func(g *GuardStatus) { g.Held = GuardHeld{DeletedFiles: 3, DeletedBytes: 3 * gibibyte} })}, CheckOptions{WarningHeld: 2 * gibibyte}, CheckWarning, "WARNING held", "(3)"},
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

func TestLevelsAreTheExitCodesOfPlugins(t *testing.T) {
	for level, code := range map[CheckLevel]int{CheckOK: 0, CheckWarning: 1, CheckCritical: 2, CheckUnknown: 3, "": 3, "what": 3} {
		if got := level.Code(); got != code {
			t.Errorf("%s is %d", level, got)
		}
	}
}

func TestAnIncidentCountsBeforeTheGuardScansAgain(t *testing.T) {
	since := time.Now()
	incident := Incident{UUID: testUUID(0), Domain: "instance-0", Since: since, Paths: []string{"/i/disk", "/i/log"}}
	gone := Incident{UUID: testUUID(9), Domain: "instance-9", Name: "db", ProjectID: "p", Since: since, Paths: []string{"/i/9/disk"}}
	report := verdicts(VerdictIntact, VerdictIntact)
	report.Instances[0].Files = []File{{Path: "/i/disk", Role: RoleDisk, State: FilePresent, Allocated: 5, Holders: []Holder{}}}
	f := checkFacts{now: since, source: SourceGuard, report: report, guard: GuardStatus{Running: true, Scanned: since, Incidents: []Incident{incident, gone}}}
	r := f.sum(CheckOptions{Critical: 1, Warning: 1, MaxAge: time.Hour})
	if r.Level != CheckCritical || r.Lost() != 2 || r.Instances() != 3 || len(r.Affected) != 2 {
		t.Fatalf("%s, %d of %d, %+v", r.Level, r.Lost(), r.Instances(), r.Affected)
	}
	if got := r.Affected[0].Files; len(got) != 2 || got[0].State != FileDeleted || got[0].Allocated != 5 || got[1].Path != "/i/log" {
		t.Errorf("files: %+v", got)
	}
	if got := r.Affected[1]; got.Domain != "instance-9" || got.ProjectID != "p" || got.Verdict != VerdictRecoverable {
		t.Errorf("of the one that libvirt has forgotten: %+v", got)
	}
	if report.Instances[0].Verdict != VerdictIntact || report.Instances[0].Files[0].State != FilePresent {
		t.Error("the guard's own report was changed")
	}
	f.source = SourceScan // which is newer, but can't see what libvirt has forgotten
	if r := f.sum(CheckOptions{Critical: 1, Warning: 1, MaxAge: time.Hour}); r.Lost() != 1 || r.Affected[0].Domain != "instance-9" {
		t.Errorf("after a scan of one's own: %+v", r.Affected)
	}
	f.guard.Incidents[1].Replaced = true
	if r := f.sum(CheckOptions{Critical: 1, Warning: 1, MaxAge: time.Hour}); r.Level != CheckWarning || r.Lost() != 0 {
		t.Errorf("on other files: %s, %d", r.Level, r.Lost())
	}
}

func TestAThresholdThatCanNotBeMetIsBadUsage(t *testing.T) {
	h := newHost(t)
	for _, o := range []CheckOptions{{Warning: 2}, {Warning: 3, Critical: 2}, {Critical: -1}, {WarningHeld: 2, CriticalHeld: 1}, {WarningHeld: -1}, {MaxAge: -1}} {
		if _, err := h.engine().Check(t.Context(), o, h.engine().Scan); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestTheGuardIsAskedAndTheHostScannedOnlyWhenItDoesNotDo(t *testing.T) {
	h := newHost(t)
	now := time.Now()
	fresh := GuardStatus{Running: true, Scanned: now, Report: verdicts(VerdictDisplaced)}
	old := fresh
	old.Scanned = now.Add(-time.Hour)
	down := errors.New("libvirt is down")
	for name, c := range map[string]struct {
		guard    GuardStatus
		guardErr error
		scanErr  error
		scans    int
		source   CheckSource
		kinds    string
	}{
		"a guard":                     {fresh, nil, down, 0, SourceGuard, "WARNING displaced"},
		"none":                        {GuardStatus{}, nil, nil, 1, SourceScan, "CRITICAL lost"},
		"none, and no libvirt":        {GuardStatus{}, nil, down, 1, "", "UNKNOWN not-looked"},
		"it does not answer":          {GuardStatus{}, errors.New("broken"), nil, 1, SourceScan, "CRITICAL lost, WARNING guard"},
		"it has just begun":           {GuardStatus{Running: true, Started: now}, nil, nil, 1, SourceScan, "CRITICAL lost"},
		"its scan is old":             {old, nil, nil, 1, SourceScan, "CRITICAL lost, WARNING guard"},
		"it is old, and all there is": {old, nil, down, 1, SourceGuard, "UNKNOWN not-looked, WARNING displaced, WARNING guard"},
	} {
		t.Run(name, func(t *testing.T) {
			scans := 0
			r, err := h.engine().check(t.Context(), CheckOptions{},
				func(context.Context) (GuardStatus, error) { return c.guard, c.guardErr },
				func(context.Context) (Report, error) { scans++; return verdicts(VerdictLost), c.scanErr })
			must(t, err)
			if scans != c.scans || r.Source != c.source || strings.Join(kinds(r), ", ") != c.kinds {
				t.Errorf("%d scans, source %q, %v", scans, r.Source, r.Findings)
			}
			if r.Host != "node" || r.Guard.Report.Instances != nil {
				t.Errorf("host %q, the guard's report %v", r.Host, r.Guard.Report)
			}
		})
	}
}

func TestACheckEndsInTimeWhateverHangs(t *testing.T) {
	h := newHost(t)
	hang := make(chan struct{})
	defer close(hang)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	scanned := false
	r, err := h.engine().check(ctx, CheckOptions{},
		func(context.Context) (GuardStatus, error) { <-hang; return GuardStatus{}, nil },
		func(context.Context) (Report, error) { scanned = true; return verdicts(VerdictLost), nil })
	must(t, err)
	if !scanned || r.Level != CheckCritical || ctx.Err() != nil {
		t.Errorf("a guard that hangs: %v", r.Findings)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r, err = h.engine().Check(ctx, CheckOptions{}, func(context.Context) (Report, error) { <-hang; return Report{}, nil })
	must(t, err)
	if r.Level != CheckUnknown || !strings.Contains(r.Findings[0].Text, "no answer in time") {
		t.Errorf("a libvirt that hangs: %v", r.Findings)
	}
	if r.Runs == nil {
		t.Error("what was found out before is missing")
	}
}

func TestACheckOfAHostSeesTheAccidentAndItsEnd(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b"})
	h.add(2, guestOptions{})
	check := func(level CheckLevel, want ...string) CheckReport {
		t.Helper()
		r, err := h.engine().Check(t.Context(), CheckOptions{}, h.engine().Scan)
		must(t, err)
		if r.Level != level || !slices.Equal(want, kinds(r)) {
			t.Fatalf("%s: %v", r.Level, r.Findings)
		}
		return r
	}
	if r := check(CheckOK); r.Instances() != 2 || r.Held.Files != 0 || len(r.Affected) != 0 {
		t.Errorf("healthy: %+v", r)
	}
	h.purge()
	if r := check(CheckCritical, "CRITICAL lost"); r.Lost() != 2 || r.Held.Files != 3 || r.Held.Bytes == 0 || len(r.Affected) != 2 {
		t.Errorf("after the accident: %+v", r)
	}
	run, _ := h.crashAt(CommandRescue, options(g), 12)
	r := check(CheckCritical, "CRITICAL lost", "WARNING interrupted")
	if !r.Keeper.Running || len(r.Runs) != 1 || r.Runs[0].Run != run || r.Runs[0].HalfDone != nil || r.Interrupted() != 1 || r.HalfDone() != 0 {
		t.Errorf("after the crash of a run: %+v", r)
	}
	_, err := h.resume(t.Context(), run)
	must(t, err)
	o := options(g)
	o.Selection = Selection{All: true}
	_, err = h.run(t.Context(), CommandRescue, o)
	must(t, err)
	if r := check(CheckOK); r.Instances() != 2 {
		t.Errorf("after the rescue: %+v", r)
	}
}

func TestALiveRescueThatWasKilledIsHalfDoneUntilItIsFinished(t *testing.T) {
	h := newHost(t)
	h.hv.support = MirrorSupport{Synchronous: true, Export: true}
	g := h.add(1, guestOptions{base: "b"})
	h.purge()
	o := options(g)
	o.Mode = ModeLive
	for point, half := range map[string]bool{"pin.done": false, "plan.done": false, "instance.begin": true, "mirror.begin": true} {
		t.Run(point, func(t *testing.T) {
			run, at := h.crashIn(CommandRescue, o, func(e *Engine, here func(string)) {
				e.Failpoint = func(p string) {
					if p == point {
						here(p)
					}
				}
			})
			if at != point {
				t.Fatalf("it came to %q", at)
			}
			defer func() { must(t, os.RemoveAll(stateDir(h.settings.StateDir).run(run))) }()
			r, err := h.engine().Check(t.Context(), CheckOptions{}, h.engine().Scan)
			must(t, err)
			want := []string{"CRITICAL lost", "WARNING interrupted"}
			if half {
				want = []string{"CRITICAL lost", "CRITICAL half-done"}
			}
			if diff := cmp.Diff(want, kinds(r)); diff != "" {
				t.Error(diff)
			}
			if half && (r.HalfDone() != 1 || r.Runs[0].HalfDone[0] != HalfDone{UUID: g.uuid, Domain: "instance-00000001", Name: "vm1", Last: point}) {
				t.Errorf("half done: %+v", r.Runs)
			}
			if !half {
				return
			}
			// A run whose journal is damaged behind that is no less half done.
			journal := filepath.Join(stateDir(h.settings.StateDir).run(run), journalName)
			data, err := os.ReadFile(journal)
			must(t, err)
			must(t, os.WriteFile(journal, append(data, "no record\nno record\n"...), 0o600))
			r, err = h.engine().Check(t.Context(), CheckOptions{}, h.engine().Scan)
			must(t, err)
			if r.HalfDone() != 1 || r.Runs[0].Error == "" {
				t.Errorf("with a damaged journal: %+v", r.Runs)
			}
		})
	}
}
