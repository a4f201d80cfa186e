package guard

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func FuzzHeldFiles(f *testing.F) {
	f.Add([]byte(`{"boot_id":"x","holds":[{"device":1,"inode":2,"path":"/a","role":"disk"}]}`))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseHeldFiles(data) })
}

func TestTheListOfHeldFilesIsForThisBootAlone(t *testing.T) {
	b := newIncidentBed(t)
	m := newMemory(b.dir)
	if holds, host, err := m.load(); len(holds) != 0 || host != "" || err != nil {
		t.Errorf("in a guard's first life: %v, %q, %v", holds, host, err)
	}
	b.holds.need(b.holds.deleted()[0].inode())
	recovertest.Must(t, m.save(b.holds, func() string { return "node" }))
	want := b.holds.deleted()[0]
	holds, host, err := newMemory(b.dir).load()
	recovertest.Must(t, err)
	if got := holds[want.inode()]; host != "node" || !got.same(want.holdMemory) || !got.Needed || !got.Since.Equal(want.Since) {
		t.Errorf("host %q, %+v, want %+v", host, got, want.holdMemory)
	}
	data, err := os.ReadFile(m.file)
	recovertest.Must(t, err)
	var held heldFiles
	recovertest.Must(t, json.Unmarshal(data, &held))
	held.BootID = "another"
	data, err = json.Marshal(held)
	recovertest.Must(t, err)
	recovertest.Must(t, os.WriteFile(m.file, data, 0o600))
	if holds, host, err := m.load(); len(holds) != 0 || host != "node" || err != nil {
		t.Errorf("after a reboot of the host: %v, %q, %v", holds, host, err)
	}
	recovertest.Must(t, os.WriteFile(m.file, []byte("{"), 0o600))
	if _, _, err := m.load(); err == nil {
		t.Error("a broken list is taken for an empty one")
	}
}

func TestTheListOfHeldFilesIsWrittenWhenItHasChangedAndUntilItIsOnDisk(t *testing.T) {
	b := newIncidentBed(t)
	m := newMemory(b.dir)
	written := func() bool {
		t.Helper()
		before, _ := os.Stat(m.file)
		recovertest.Must(t, m.save(b.holds, func() string { return "node" }))
		after, err := os.Stat(m.file)
		recovertest.Must(t, err)
		return before == nil || !os.SameFile(before, after)
	}
	if !written() || written() {
		t.Error("it is not written once")
	}
	b.holds.updateEach(func(h *guardHold) { h.addOwner(recovertest.UUID(2)) })
	recovertest.Must(t, os.Rename(string(b.dir), string(b.dir)+".away"))
	if err := m.save(b.holds, func() string { return "node" }); err == nil {
		t.Error("it was written into a directory that is not there")
	}
	recovertest.Must(t, os.Rename(string(b.dir)+".away", string(b.dir)))
	if !written() {
		t.Error("after a failure it is not written again")
	}
}
