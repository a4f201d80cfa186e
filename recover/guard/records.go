package guard

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/os-rescue/os-rescue/recover/inventory"
)

// records are what a guard knows of each instance beyond its files, in memory and on
// disk. It is safe for concurrent use. What it returns is the caller's own.
type records struct {
	dir inventory.Dir

	mu  sync.Mutex
	all map[string]inventory.Record // by UUID
	// writing is held while a record goes to the disk, so that the newest is written
	// last. It is taken before mu, which is never held meanwhile.
	writing sync.Mutex
}

func newRecords(dir inventory.Dir) *records {
	return &records{dir: dir, all: map[string]inventory.Record{}}
}

// load reads the records of an earlier life. One that can't be read is an error
// beside the others.
func (r *records) load() error {
	all, err := r.dir.Records()
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.Copy(r.all, all)
	return err
}

// get returns an instance's record; false when there is none.
func (r *records) get(uuid string) (inventory.Record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	record, ok := r.all[uuid]
	return record.Clone(), ok
}

// uuids returns the instances that have a record, sorted.
func (r *records) uuids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.all))
}

// locked returns the instances that the guard has locked in Nova, sorted.
func (r *records) locked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var locked []string
	for uuid, record := range r.all {
		if record.Lock != "" {
			locked = append(locked, uuid)
		}
	}
	slices.Sort(locked)
	return locked
}

// note changes an instance's record, which is made if there is none, and brings it
// to the disk. do must not block: it is called under the lock. The error is the
// disk's; the change is in memory all the same.
func (r *records) note(uuid string, do func(*inventory.Record)) error {
	r.mu.Lock()
	r.change(uuid, do)
	r.mu.Unlock()
	return r.write(uuid)
}

// update is note for a record that exists; without one it does nothing.
func (r *records) update(uuid string, do func(*inventory.Record)) error {
	r.mu.Lock()
	_, ok := r.all[uuid]
	if ok {
		r.change(uuid, do)
	}
	r.mu.Unlock()
	if !ok {
		return nil
	}
	return r.write(uuid)
}

func (r *records) change(uuid string, do func(*inventory.Record)) {
	record := r.all[uuid].Clone() // whoever writes the old one may be reading it
	do(&record)
	r.all[uuid] = record
}

func (r *records) write(uuid string) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	record := r.all[uuid]
	r.mu.Unlock()
	if !strings.EqualFold(record.Domain.UUID, uuid) {
		return nil // dropped meanwhile, or of a domain of which nothing is known
	}
	return r.dir.Write(record)
}

// drop forgets an instance.
func (r *records) drop(uuid string) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	delete(r.all, uuid)
	r.mu.Unlock()
	return r.dir.Remove(uuid)
}
