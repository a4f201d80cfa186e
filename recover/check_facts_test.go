package recover

import (
	"testing"
	"time"
)

const gibibyte = 1 << 30

func TestAnIncidentCountsBeforeTheGuardScansAgain(t *testing.T) {
	since := time.Now()
	incident := Incident{UUID: testUUID(0), Domain: "instance-0", Since: since, Paths: []string{"/i/disk", "/i/log"}}
	gone := Incident{UUID: testUUID(9), Domain: "instance-9", Name: "db", ProjectID: "p", Since: since, Paths: []string{"/i/9/disk"}}
	report := verdicts(VerdictIntact, VerdictIntact)
	report.Instances[0].Files = []File{{Path: "/i/disk", Role: RoleDisk, State: FilePresent, Allocated: 5, Holders: []Holder{}}}
	guard := GuardStatus{Running: true, Scanned: since, Incidents: []Incident{incident, gone}}
	f := checkFacts{now: since, source: SourceGuard, report: report, guard: guard}
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
