package guard

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// newTestRecords are records in a directory of the test's own.
func newTestRecords(t *testing.T) (*records, inventory.Dir) {
	t.Helper()
	dir := inventory.In(t.TempDir())
	recovertest.Must(t, dir.Create())
	return newRecords(dir), dir
}

// noteDomain makes a record that may be written.
func noteDomain(t *testing.T, r *records, uuid string) {
	t.Helper()
	recovertest.Must(t, r.note(uuid, func(r *inventory.Record) {
		r.Domain = recover.Domain{UUID: uuid, Name: "instance-" + uuid[len(uuid)-4:]}
	}))
}

func TestNoChangeOfARecordIsLostAndTheLastIsOnDisk(t *testing.T) {
	r, dir := newTestRecords(t)
	const changers, changes, instances = 8, 25, 3
	for n := range instances {
		noteDomain(t, r, recovertest.UUID(n))
	}
	var work sync.WaitGroup
	for who := range changers {
		work.Go(func() {
			for n := range changes {
				uuid := recovertest.UUID(n % instances)
				path := fmt.Sprintf("/%d/%d", who, n)
				if err := r.update(uuid, func(r *inventory.Record) { r.AddSmall(map[string]string{path: uuid}) }); err != nil {
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
	onDisk, err := dir.Records()
	recovertest.Must(t, err)
	for n := range instances {
		got, _ := r.get(recovertest.UUID(n))
		sum += len(got.Small)
		if diff := cmp.Diff(got.Small, onDisk[recovertest.UUID(n)].Small); diff != "" {
			t.Errorf("on disk is something else: %s", diff)
		}
	}
	if sum != changers*changes {
		t.Errorf("%d of %d changes are left", sum, changers*changes)
	}
}

func TestAnUpdateMakesNoRecord(t *testing.T) {
	r, dir := newTestRecords(t)
	recovertest.Must(t, r.update(recovertest.UUID(1), func(*inventory.Record) { t.Error("there is nothing to change") }))
	if _, ok := r.get(recovertest.UUID(1)); ok || len(r.uuids()) != 0 {
		t.Error("there is a record")
	}
	// One of a domain of which nothing is known is no file that a scan could read.
	recovertest.Must(t, r.note(recovertest.UUID(1), func(r *inventory.Record) { r.Lock = "x" }))
	if onDisk, err := os.ReadDir(string(dir)); err != nil || len(onDisk) != 0 {
		t.Errorf("on disk: %v, %v", onDisk, err)
	}
}

func TestARecordThatWasDroppedDoesNotComeBack(t *testing.T) {
	r, dir := newTestRecords(t)
	for n := range 20 {
		uuid := recovertest.UUID(n)
		noteDomain(t, r, uuid)
		var work sync.WaitGroup
		for range 4 {
			work.Go(func() { _ = r.update(uuid, func(r *inventory.Record) { r.Lock += "x" }) })
		}
		work.Go(func() {
			if err := r.drop(uuid); err != nil {
				t.Error(err)
			}
		})
		work.Wait()
		if _, err := os.Stat(dir.RecordFile(uuid)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the record's file: %v", err)
		}
		if _, ok := r.get(uuid); ok {
			t.Error("the record is there")
		}
	}
	recovertest.Must(t, r.drop(recovertest.UUID(1)))
}

func TestARecordThatWasGivenOutIsNoOneElses(t *testing.T) {
	r, _ := newTestRecords(t)
	uuid := recovertest.UUID(1)
	recovertest.Must(t, r.note(uuid, func(r *inventory.Record) {
		r.Domain.UUID, r.Small, r.Incident = uuid, map[string]string{"/a": "1"}, &inventory.Incident{Found: recover.StateRunning}
	}))
	got, _ := r.get(uuid)
	got.Small["/b"], got.Incident.Found = "2", recover.StateShutOff
	now, _ := r.get(uuid)
	if !maps.Equal(now.Small, map[string]string{"/a": "1"}) || now.Incident.Found != recover.StateRunning {
		t.Errorf("it was changed: %+v", now)
	}
}

func TestTheNextLifeHasTheRecordsAndSaysWhichItCanNotRead(t *testing.T) {
	r, dir := newTestRecords(t)
	noteDomain(t, r, recovertest.UUID(1))
	recovertest.Must(t, r.update(recovertest.UUID(1), func(r *inventory.Record) { r.Lock = "a reason" }))
	broken := filepath.Join(string(dir), recovertest.UUID(2)+".json")
	recovertest.Must(t, os.WriteFile(broken, []byte("{"), 0o600))
	again := newRecords(dir)
	if err := again.load(); err == nil {
		t.Error("nothing is said of the broken one")
	}
	if got := again.locked(); !cmp.Equal(got, []string{recovertest.UUID(1)}) {
		t.Errorf("locked: %v", got)
	}
}

func TestARecordThatCanNotBeWrittenIsInMemoryAllTheSame(t *testing.T) {
	r := newRecords(inventory.In(filepath.Join(t.TempDir(), "missing")))
	if err := r.note(recovertest.UUID(1), func(r *inventory.Record) { r.Domain.UUID = recovertest.UUID(1) }); err == nil {
		t.Error("it was written into a directory that is not there")
	}
	if _, ok := r.get(recovertest.UUID(1)); !ok {
		t.Error("it is lost")
	}
}
