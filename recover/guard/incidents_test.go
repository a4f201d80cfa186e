package guard

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// incidentBed is what incidents are made of, with one deleted file of an instance.
type incidentBed struct {
	dir     inventory.Dir
	records *records
	holds   *holdings
	all     *incidents
	begun   int
	lost    recover.Instance
}

func newIncidentBed(t *testing.T) *incidentBed {
	t.Helper()
	b := &incidentBed{holds: newHoldings(nil, func() {})}
	b.records, b.dir = newTestRecords(t)
	t.Cleanup(b.holds.close)
	b.all = newIncidents(b.holds, b.records, &lastScan{}, newProblems(), func() { b.begun++ })
	path := filepath.Join(t.TempDir(), "disk")
	recovertest.Must(t, os.WriteFile(path, []byte("content"), 0o600))
	f, err := os.Open(path)
	recovertest.Must(t, err)
	recovertest.Must(t, os.Remove(path))
	uuid := recovertest.UUID(1)
	recovertest.Must(t, b.holds.add(f, holdMemory{Path: path, Owners: []string{uuid}, Role: recover.RoleDisk, Deleted: time.Now()}))
	h := b.holds.deleted()[0]
	b.lost = recover.Instance{UUID: uuid, Domain: "instance-1", Name: "web", PID: 1, State: recover.StateRunning,
		Definition: recover.Domain{UUID: uuid, Name: "instance-1"},
		Files: []recover.File{{Path: path, Role: recover.RoleDisk, State: recover.FilePresent,
			Device: h.Device, Inode: h.Inode, Birth: h.Birth}}}
	b.all.last.set(recover.Report{Instances: []recover.Instance{b.lost}})
	return b
}

func TestAnIncidentBeginsOnceAndItsFilesAreNeeded(t *testing.T) {
	b := newIncidentBed(t)
	b.all.begin(t.Context(), b.lost)
	first, _ := b.all.get(b.lost.UUID)
	b.all.begin(t.Context(), b.lost)
	list, seen := b.all.list()
	if len(list) != 1 || seen != 1 || b.begun != 1 || !list[0].Since.Equal(first.Since) {
		t.Fatalf("%d seen, %d begun, %+v", seen, b.begun, list)
	}
	if i := list[0]; i.Domain != "instance-1" || i.Found != recover.StateRunning || len(i.Paths) != 1 || i.Paths[0] != b.lost.Files[0].Path {
		t.Errorf("it is %+v", i)
	}
	if !b.holds.deleted()[0].Needed {
		t.Error("the file is not needed")
	}
	if now, _ := b.all.last.instance(b.lost.UUID); now.Verdict != recover.VerdictRecoverable || now.Files[0].State != recover.FileDeleted {
		t.Errorf("the last scan says %s, %s", now.Verdict, now.Files[0].State)
	}
	if b.lost.Files[0].State != recover.FilePresent {
		t.Error("the report that somebody may be reading was changed")
	}
}

func TestAnIncidentIsOverOnDiskToo(t *testing.T) {
	b := newIncidentBed(t)
	b.all.begin(t.Context(), b.lost)
	onDisk, err := b.dir.Records()
	recovertest.Must(t, err)
	if r := onDisk[b.lost.UUID]; r.Incident == nil || r.Incident.Found != recover.StateRunning || r.Domain.Name != "instance-1" {
		t.Fatalf("on disk it is %+v", r)
	}
	b.all.end(t.Context(), b.lost.UUID)
	onDisk, err = b.dir.Records()
	recovertest.Must(t, err)
	if r, ok := onDisk[b.lost.UUID]; !ok || r.Incident != nil || b.all.any() {
		t.Errorf("after its end: %+v", r)
	}
	b.all.end(t.Context(), b.lost.UUID) // no incident is no trouble
}

func TestTheNextLifeGoesOnWithAnIncident(t *testing.T) {
	for _, lookAgain := range []bool{false, true} {
		b := newIncidentBed(t)
		b.all.begin(t.Context(), b.lost)
		recovertest.Must(t, b.records.update(b.lost.UUID, func(r *inventory.Record) { r.Lock = "a reason" }))
		before, _ := b.all.get(b.lost.UUID)
		again := newIncidents(b.holds, b.records, b.all.last, newProblems(), func() { t.Error("it does not begin once more") })
		again.restore(lookAgain)
		after, ok := again.get(b.lost.UUID)
		if !ok || !after.Since.Equal(before.Since) || after.Domain != before.Domain || len(after.Paths) != 1 || after.Locked == lookAgain {
			t.Errorf("with a look at its lock %t: %+v", lookAgain, after)
		}
		if _, seen := again.list(); seen != 0 {
			t.Errorf("%d were seen in this life", seen)
		}
	}
}

func TestIncidentsMayBeReadWhileTheyChange(t *testing.T) {
	b := newIncidentBed(t)
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() { b.all.begin(t.Context(), b.lost); b.all.describe(b.lost.UUID) })
		work.Go(func() {
			b.all.update(b.lost.UUID, func(i *Incident) { i.Locked = !i.Locked })
			b.all.list()
		})
	}
	work.Wait()
	list, _ := b.all.list()
	list[0].Paths[0] = "/other" // the list is the caller's own
	if i, _ := b.all.get(b.lost.UUID); len(i.Paths) != 1 || i.Paths[0] != b.lost.Files[0].Path {
		t.Errorf("its paths are %v", i.Paths)
	}
	if _, seen := b.all.list(); seen != 1 || b.begun != 1 {
		t.Errorf("%d seen, %d begun", seen, b.begun)
	}
}
