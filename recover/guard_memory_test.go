package recover

import (
	"encoding/json"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

func TestARestartLosesNoHoldAndForgetsNothing(t *testing.T) {
	h := newHost(t)
	v, off := h.add(1, guestOptions{base: "b1", console: true}), h.add(2, guestOptions{state: StateShutOff})
	s := &shelf{files: map[string]*os.File{}}
	g := startGuard(h, GuardOptions{}, s, nil)
	g.awaitScan()
	h.purge()
	before := g.await("the incidents", func(s GuardStatus) bool { return len(s.Incidents) == 2 })
	v.forgotten()
	must(t, g.stop())
	c, err := keeper.Connect(t.Context(), h.settings.StateDir)
	must(t, err)
	holds, err := c.List(t.Context())
	must(t, err)
	c.Close()
	if len(holds) == 0 {
		t.Error("the keeper was given nothing")
	}
	again := startGuard(h, GuardOptions{}, s, s.inherit(t))
	after := again.await("the next life", func(s GuardStatus) bool { return !s.Scanned.IsZero() && len(s.Incidents) == 2 })
	if after.Held.DeletedFiles != before.Held.DeletedFiles || !after.Incidents[0].Since.Equal(before.Incidents[0].Since) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	again.await("the keeper has let go", func(GuardStatus) bool {
		status, err := h.engine().Keeper(t.Context())
		must(t, err)
		return len(status.Holds) == 0
	})
	ran, err := h.run(t.Context(), CommandRescue, offlineOf(v, off))
	must(t, err)
	for _, i := range ran.Instances {
		if i.Outcome != OutcomeRescued {
			t.Fatalf("it says %+v", i)
		}
	}
	hasContent(t, v)
	hasContent(t, off)
	again.await("the end", func(s GuardStatus) bool { return s.Held.DeletedFiles == 0 })
	must(t, again.stop())
	for _, f := range s.inherit(t) {
		var st unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &st))
		if st.Nlink == 0 {
			t.Errorf("the shelf still has a deleted file, %s", f.Name())
		}
	}
}

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
	must(t, m.save(b.holds, "node"))
	want := b.holds.deleted()[0]
	holds, host, err := newMemory(b.dir).load()
	must(t, err)
	if got := holds[want.inode()]; host != "node" || !got.same(want.holdMemory) || !got.Needed || !got.Since.Equal(want.Since) {
		t.Errorf("host %q, %+v, want %+v", host, got, want.holdMemory)
	}
	data, err := os.ReadFile(m.file)
	must(t, err)
	var held heldFiles
	must(t, json.Unmarshal(data, &held))
	held.BootID = "another"
	data, err = json.Marshal(held)
	must(t, err)
	must(t, os.WriteFile(m.file, data, 0o600))
	if holds, host, err := m.load(); len(holds) != 0 || host != "node" || err != nil {
		t.Errorf("after a reboot of the host: %v, %q, %v", holds, host, err)
	}
	must(t, os.WriteFile(m.file, []byte("{"), 0o600))
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
		must(t, m.save(b.holds, "node"))
		after, err := os.Stat(m.file)
		must(t, err)
		return before == nil || !os.SameFile(before, after)
	}
	if !written() || written() {
		t.Error("it is not written once")
	}
	b.holds.updateEach(func(h *guardHold) { h.addOwner(testUUID(2)) })
	must(t, os.Rename(string(b.dir), string(b.dir)+".away"))
	if err := m.save(b.holds, "node"); err == nil {
		t.Error("it was written into a directory that is not there")
	}
	must(t, os.Rename(string(b.dir)+".away", string(b.dir)))
	if !written() {
		t.Error("after a failure it is not written again")
	}
}
