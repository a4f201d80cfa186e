package guard

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
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
	data, err := os.ReadFile(m.dir.HoldsFile())
	recovertest.Must(t, err)
	var held heldFiles
	recovertest.Must(t, json.Unmarshal(data, &held))
	held.BootID = "another"
	data, err = json.Marshal(held)
	recovertest.Must(t, err)
	recovertest.Must(t, os.WriteFile(m.dir.HoldsFile(), data, 0o600))
	if holds, host, err := m.load(); len(holds) != 0 || host != "node" || err != nil {
		t.Errorf("after a reboot of the host: %v, %q, %v", holds, host, err)
	}
	recovertest.Must(t, os.WriteFile(m.dir.HoldsFile(), []byte("{"), 0o600))
	if _, _, err := m.load(); err == nil {
		t.Error("a broken list is taken for an empty one")
	}
}

// A guard that is brought up to date takes its files over from the one before, which knew
// them by their numbers.
func TestAListWithoutBirthsIsOfTheFilesThatAreStillHeld(t *testing.T) {
	b := newIncidentBed(t)
	old := b.holds.deleted()[0]
	since := time.Unix(1700000000, 0).UTC()
	list := fmt.Sprintf(`{"boot_id":"x","holds":[{"device":%d,"inode":%d,"path":%q,"owners":["u"],"role":"disk","since":%q,"needed":true},
		{"device":%[1]d,"inode":%[2]d1,"path":"/other","role":"disk","since":%[4]q}]}`,
		old.Device, old.Inode, old.Path, since.Format(time.RFC3339))
	held, err := parseHeldFiles([]byte(list))
	recovertest.Must(t, err)
	remembered := map[recover.Inode]holdMemory{}
	for _, m := range held.Holds {
		remembered[m.inode()] = m
	}
	again := func() *os.File {
		f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", old.file.Fd()))
		recovertest.Must(t, err)
		return f
	}
	for how, take := range map[string]func(h *holdings) error{
		"from the shelf": func(h *holdings) error { return h.adopt("x", again()) },
		"by a scan":      func(h *holdings) error { return h.add(again(), holdMemory{Path: old.Path, Role: recover.RoleDisk}) },
	} {
		h := newHoldings(nil, func() {})
		defer h.close()
		h.remember(maps.Clone(remembered))
		recovertest.Must(t, take(h))
		if got := h.files[old.inode()]; got == nil || !got.Needed || !got.Since.Equal(since) || got.Birth == "" || !got.isOf("u") {
			t.Errorf("%s: %+v", how, got)
		}
		if len(h.remembered) != 1 {
			t.Errorf("%s: %v is still remembered", how, h.remembered)
		}
		if _, err := h.Open(old.inode().Unborn().Key()); err != nil {
			t.Errorf("%s: by its number: %v", how, err)
		}
	}
}

func TestTheListOfHeldFilesIsWrittenWhenItHasChangedAndUntilItIsOnDisk(t *testing.T) {
	b := newIncidentBed(t)
	m := newMemory(b.dir)
	written := func() bool {
		t.Helper()
		before, _ := os.Stat(m.dir.HoldsFile())
		recovertest.Must(t, m.save(b.holds, func() string { return "node" }))
		after, err := os.Stat(m.dir.HoldsFile())
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

// An earlier guard did not say whether a file was opened: one that was needed, and that no
// definition names, was one that its QEMU had open.
func TestAListOfAnEarlierGuardKeepsWhatAQEMUHadOpen(t *testing.T) {
	const list = `"boot_id":"x","holds":[{"path":"/a","role":"other","needed":true},{"path":"/b","role":"other"}]}`
	for version, opened := range map[string]bool{"": true, `"version":1,`: false} {
		held, err := parseHeldFiles([]byte("{" + version + list))
		recovertest.Must(t, err)
		if a, b := held.Holds[0], held.Holds[1]; a.Opened != opened || a.meta().Stray == opened || b.Opened {
			t.Errorf("with %q: %+v, %+v", version, a, b)
		}
	}
}

// What a keeper pins, or anybody else has open, is none that an instance's process had open.
func TestOnlyAnInstancesOwnProcessesOpenItsFiles(t *testing.T) {
	for name, c := range map[string]struct {
		pid    int
		holder recover.Holder
		want   bool
	}{
		"its QEMU":     {7, recover.Holder{PID: 7, Process: "qemu-system-x86"}, true},
		"virtlogd":     {7, recover.Holder{PID: 8, Process: procfs.Virtlogd}, true},
		"the keeper":   {7, recover.Holder{PID: 8, Process: "os-rescue"}, false},
		"another QEMU": {7, recover.Holder{PID: 8, Process: "qemu-system-x86"}, false},
		"it is off":    {0, recover.Holder{Process: "qemu-system-x86"}, false},
	} {
		if got := isOpenedBy(recover.Instance{PID: c.pid}, recover.File{Holders: []recover.Holder{c.holder}}); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
