package recover

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newTestRecords are records in a directory of the test's own.
func newTestRecords(t *testing.T) (*records, guardDir) {
	t.Helper()
	dir := guardDirIn(t.TempDir())
	must(t, dir.create())
	return newRecords(dir), dir
}

// noteDomain makes a record that may be written.
func noteDomain(t *testing.T, r *records, uuid string) {
	t.Helper()
	must(t, r.Note(uuid, func(r *guardRecord) { r.Domain = Domain{UUID: uuid, Name: "instance-" + uuid[len(uuid)-4:]} }))
}

func TestNoChangeOfARecordIsLostAndTheLastIsOnDisk(t *testing.T) {
	r, dir := newTestRecords(t)
	const changers, changes, instances = 8, 25, 3
	for n := range instances {
		noteDomain(t, r, testUUID(n))
	}
	var work sync.WaitGroup
	for who := range changers {
		work.Go(func() {
			for n := range changes {
				uuid := testUUID(n % instances)
				path := fmt.Sprintf("/%d/%d", who, n)
				if err := r.Update(uuid, func(r *guardRecord) { r.addSmall(map[string]string{path: uuid}) }); err != nil {
					t.Error(err)
				}
				if got, ok := r.get(uuid); !ok || got.Small[path] != uuid {
					t.Errorf("%s is not in the record", path)
				}
			}
		})
	}
	work.Wait()
	sum := 0
	onDisk, err := dir.records()
	must(t, err)
	for n := range instances {
		got, _ := r.get(testUUID(n))
		sum += len(got.Small)
		if diff := cmp.Diff(got.Small, onDisk[testUUID(n)].Small); diff != "" {
			t.Errorf("on disk is something else: %s", diff)
		}
	}
	if sum != changers*changes {
		t.Errorf("%d of %d changes are left", sum, changers*changes)
	}
}

func TestAnUpdateMakesNoRecord(t *testing.T) {
	r, dir := newTestRecords(t)
	must(t, r.Update(testUUID(1), func(*guardRecord) { t.Error("there is nothing to change") }))
	if _, ok := r.get(testUUID(1)); ok || len(r.uuids()) != 0 {
		t.Error("there is a record")
	}
	// One of a domain of which nothing is known is no file that a scan could read.
	must(t, r.Note(testUUID(1), func(r *guardRecord) { r.Lock = "x" }))
	if onDisk, err := os.ReadDir(string(dir)); err != nil || len(onDisk) != 0 {
		t.Errorf("on disk: %v, %v", onDisk, err)
	}
}

func TestARecordThatWasDroppedDoesNotComeBack(t *testing.T) {
	r, dir := newTestRecords(t)
	for n := range 20 {
		uuid := testUUID(n)
		noteDomain(t, r, uuid)
		var work sync.WaitGroup
		for range 4 {
			work.Go(func() { _ = r.Update(uuid, func(r *guardRecord) { r.Lock += "x" }) })
		}
		work.Go(func() {
			if err := r.drop(uuid); err != nil {
				t.Error(err)
			}
		})
		work.Wait()
		if _, err := os.Stat(dir.recordFile(uuid)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the record's file: %v", err)
		}
		if _, ok := r.get(uuid); ok {
			t.Error("the record is there")
		}
	}
	must(t, r.drop(testUUID(1)))
}

func TestARecordThatWasGivenOutIsNoOneElses(t *testing.T) {
	r, _ := newTestRecords(t)
	uuid := testUUID(1)
	must(t, r.Note(uuid, func(r *guardRecord) {
		r.Domain.UUID, r.Small, r.Incident = uuid, map[string]string{"/a": "1"}, &incidentRecord{Found: StateRunning}
	}))
	got, _ := r.get(uuid)
	got.Small["/b"], got.Incident.Found = "2", StateShutOff
	now, _ := r.get(uuid)
	if !maps.Equal(now.Small, map[string]string{"/a": "1"}) || now.Incident.Found != StateRunning {
		t.Errorf("it was changed: %+v", now)
	}
}

func TestTheNextLifeHasTheRecordsAndSaysWhichItCanNotRead(t *testing.T) {
	r, dir := newTestRecords(t)
	noteDomain(t, r, testUUID(1))
	must(t, r.Update(testUUID(1), func(r *guardRecord) { r.Lock = "a reason" }))
	broken := filepath.Join(string(dir), testUUID(2)+".json")
	must(t, os.WriteFile(broken, []byte("{"), 0o600))
	again := newRecords(dir)
	if err := again.load(); err == nil {
		t.Error("nothing is said of the broken one")
	}
	if got := again.locked(); !cmp.Equal(got, []string{testUUID(1)}) {
		t.Errorf("locked: %v", got)
	}
}

func TestARecordThatCanNotBeWrittenIsInMemoryAllTheSame(t *testing.T) {
	r := newRecords(guardDirIn(filepath.Join(t.TempDir(), "missing")))
	if err := r.Note(testUUID(1), func(r *guardRecord) { r.Domain.UUID = testUUID(1) }); err == nil {
		t.Error("it was written into a directory that is not there")
	}
	if _, ok := r.get(testUUID(1)); !ok {
		t.Error("it is lost")
	}
}
