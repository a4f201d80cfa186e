package recover

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// checkSources are a host's own, but for the guard and the scan.
func checkSources(h *host, guard func(context.Context) (GuardStatus, error),
	scan func(context.Context) (Report, error),
) CheckSources {
	sources := hostSources(h.settings, scan)
	sources.Guard = guard
	return sources
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
			r, err := Check(t.Context(), checkSources(h,
				func(context.Context) (GuardStatus, error) { return c.guard, c.guardErr },
				func(context.Context) (Report, error) { scans++; return verdicts(VerdictLost), c.scanErr }), CheckOptions{})
			must(t, err)
			if scans != c.scans || r.Source != c.source || strings.Join(found(r), ", ") != c.kinds {
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
	r, err := Check(ctx, checkSources(h,
		func(context.Context) (GuardStatus, error) { <-hang; return GuardStatus{}, nil },
		func(context.Context) (Report, error) { scanned = true; return verdicts(VerdictLost), nil }), CheckOptions{})
	must(t, err)
	if !scanned || r.Level != CheckCritical || ctx.Err() != nil {
		t.Errorf("a guard that hangs: %v", r.Findings)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r, err = Check(ctx, hostSources(h.settings, func(context.Context) (Report, error) { <-hang; return Report{}, nil }), CheckOptions{})
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
		r, err := Check(t.Context(), hostSources(h.settings, h.scanAll), CheckOptions{})
		must(t, err)
		if r.Level != level || !slices.Equal(want, found(r)) {
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
	if !r.Keeper.Running || r.Interrupted() != 1 || r.HalfDone() != 0 {
		t.Errorf("after the crash of a run: %+v", r)
	}
	if len(r.Runs) != 1 || r.Runs[0].Run != run || r.Runs[0].HalfDone != nil {
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

// found are the kinds of a report's findings.
func found(r CheckReport) []string {
	var kinds []string
	for _, f := range r.Findings {
		kinds = append(kinds, string(f.Kind))
	}
	return kinds
}
