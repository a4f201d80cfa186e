package check_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// checkSources are a host's own, but for the guard and the scan.
func checkSources(h *runtest.Host, guardian func(context.Context) (guard.Status, error),
	scan func(context.Context) (recover.Report, error),
) check.Sources {
	sources := check.SourcesOf(h.Settings, scan)
	sources.Guard = guardian
	return sources
}

func TestTheGuardIsAskedAndTheHostScannedOnlyWhenItDoesNotDo(t *testing.T) {
	h := runtest.NewHost(t)
	now := time.Now()
	fresh := guard.Status{Running: true, Scanned: now, Report: recovertest.Scanned(recover.VerdictDisplaced)}
	old := fresh
	old.Scanned = now.Add(-time.Hour)
	down := errors.New("libvirt is down")
	for name, c := range map[string]struct {
		guard    guard.Status
		guardErr error
		scanErr  error
		scans    int
		source   check.Source
		kinds    string
	}{
		"a guard":                     {fresh, nil, down, 0, check.SourceGuard, "WARNING displaced"},
		"none":                        {guard.Status{}, nil, nil, 1, check.SourceScan, "CRITICAL lost"},
		"none, and no libvirt":        {guard.Status{}, nil, down, 1, "", "UNKNOWN not-looked"},
		"it does not answer":          {guard.Status{}, errors.New("broken"), nil, 1, check.SourceScan, "CRITICAL lost, WARNING guard"},
		"it has just begun":           {guard.Status{Running: true, Started: now}, nil, nil, 1, check.SourceScan, "CRITICAL lost"},
		"its scan is old":             {old, nil, nil, 1, check.SourceScan, "CRITICAL lost, WARNING guard"},
		"it is old, and all there is": {old, nil, down, 1, check.SourceGuard, "UNKNOWN not-looked, WARNING displaced, WARNING guard"},
	} {
		t.Run(name, func(t *testing.T) {
			scans := 0
			r, err := check.Make(t.Context(), checkSources(h,
				func(context.Context) (guard.Status, error) { return c.guard, c.guardErr },
				func(context.Context) (recover.Report, error) {
					scans++
					return recovertest.Scanned(recover.VerdictLost), c.scanErr
				}), check.Options{})
			recovertest.Must(t, err)
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
	h := runtest.NewHost(t)
	hang := make(chan struct{})
	defer close(hang)
	ctx, cancel := context.WithTimeout(t.Context(), patience.Of(3*time.Second))
	defer cancel()
	scanned := false
	r, err := check.Make(ctx, checkSources(h,
		func(context.Context) (guard.Status, error) { <-hang; return guard.Status{}, nil },
		func(context.Context) (recover.Report, error) {
			scanned = true
			return recovertest.Scanned(recover.VerdictLost), nil
		}), check.Options{})
	recovertest.Must(t, err)
	if !scanned || r.Level != check.Critical || ctx.Err() != nil {
		t.Errorf("a guard that hangs: %v", r.Findings)
	}
	ctx, cancel = context.WithTimeout(t.Context(), patience.Of(time.Second))
	defer cancel()
	hangs := func(context.Context) (recover.Report, error) {
		<-hang
		return recover.Report{}, nil
	}
	r, err = check.Make(ctx, check.SourcesOf(h.Settings, hangs), check.Options{})
	recovertest.Must(t, err)
	if r.Level != check.Unknown || !strings.Contains(r.Findings[0].Text, "no answer in time") {
		t.Errorf("a libvirt that hangs: %v", r.Findings)
	}
	if r.Runs == nil {
		t.Error("what was found out before is missing")
	}
}

func TestACheckOfAHostSeesTheAccidentAndItsEnd(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Add(2, recovertest.GuestOptions{})
	report := func(level check.Level, want ...string) check.Report {
		t.Helper()
		r, err := check.Make(t.Context(), check.SourcesOf(h.Settings, h.ScanAll), check.Options{})
		recovertest.Must(t, err)
		if r.Level != level || !slices.Equal(want, found(r)) {
			t.Fatalf("%s: %v", r.Level, r.Findings)
		}
		return r
	}
	if r := report(check.OK); r.Instances() != 2 || r.Held.Files != 0 || len(r.Affected) != 0 {
		t.Errorf("healthy: %+v", r)
	}
	h.Purge()
	if r := report(check.Critical, "CRITICAL lost"); r.Lost() != 2 || r.Held.Files != 3 || r.Held.Bytes == 0 || len(r.Affected) != 2 {
		t.Errorf("after the accident: %+v", r)
	}
	run, _ := h.CrashAt(recover.CommandRescue, recovertest.Options(g), 12)
	r := report(check.Critical, "CRITICAL lost", "WARNING interrupted")
	if !r.Keeper.Running || r.Interrupted() != 1 || r.HalfDone() != 0 {
		t.Errorf("after the crash of a run: %+v", r)
	}
	if len(r.Runs) != 1 || r.Runs[0].Run != run || r.Runs[0].HalfDone != nil {
		t.Errorf("after the crash of a run: %+v", r)
	}
	_, err := h.Resume(t.Context(), run)
	recovertest.Must(t, err)
	o := recovertest.Options(g)
	o.Selection = recover.Selection{All: true}
	_, err = h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if r := report(check.OK); r.Instances() != 2 {
		t.Errorf("after the rescue: %+v", r)
	}
}

// found are the levels and kinds of a report's findings.
func found(r check.Report) []string {
	var kinds []string
	for _, f := range r.Findings {
		kinds = append(kinds, string(f.Level)+" "+string(f.Kind))
	}
	return kinds
}
