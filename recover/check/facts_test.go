package check

import (
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

const gibibyte = 1 << 30

func TestAnIncidentCountsBeforeTheGuardScansAgain(t *testing.T) {
	since := time.Now()
	incident := guard.Incident{UUID: recovertest.UUID(0), Domain: "instance-0", Since: since, Paths: []string{"/i/disk", "/i/log"}}
	gone := guard.Incident{
		UUID:      recovertest.UUID(9),
		Domain:    "instance-9",
		Name:      "db",
		ProjectID: "p",
		Since:     since,
		Paths:     []string{"/i/9/disk"},
	}
	report := recovertest.Scanned(recover.VerdictIntact, recover.VerdictIntact)
	report.Instances[0].Files = []recover.File{{
		Path:      "/i/disk",
		Role:      recover.RoleDisk,
		State:     recover.FilePresent,
		Allocated: 5,
		Holders:   []recover.Holder{},
	}}
	status := guard.Status{Running: true, Scanned: since, Incidents: []guard.Incident{incident, gone}}
	f := checkFacts{now: since, source: SourceGuard, report: report, guard: status}
	r := f.sum(Options{Critical: 1, Warning: 1, MaxAge: time.Hour})
	if r.Level != Critical || r.Lost() != 2 || r.Instances() != 3 || len(r.Affected) != 2 {
		t.Fatalf("%s, %d of %d, %+v", r.Level, r.Lost(), r.Instances(), r.Affected)
	}
	if got := r.Affected[0].Files; len(got) != 2 || got[0].State != recover.FileDeleted || got[0].Allocated != 5 || got[1].Path != "/i/log" {
		t.Errorf("files: %+v", got)
	}
	if got := r.Affected[1]; got.Domain != "instance-9" || got.ProjectID != "p" || got.Verdict != recover.VerdictRecoverable {
		t.Errorf("of the one that libvirt has forgotten: %+v", got)
	}
	if report.Instances[0].Verdict != recover.VerdictIntact || report.Instances[0].Files[0].State != recover.FilePresent {
		t.Error("the guard's own report was changed")
	}
	f.source = SourceScan // which is newer, but can't see what libvirt has forgotten
	if r := f.sum(Options{Critical: 1, Warning: 1, MaxAge: time.Hour}); r.Lost() != 1 || r.Affected[0].Domain != "instance-9" {
		t.Errorf("after a scan of one's own: %+v", r.Affected)
	}
	f.guard.Incidents[1].Replaced = true
	if r := f.sum(Options{Critical: 1, Warning: 1, MaxAge: time.Hour}); r.Level != Warning || r.Lost() != 0 {
		t.Errorf("on other files: %s, %d", r.Level, r.Lost())
	}
}
