package guard

import (
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/runs"
)

// What seems to be none of an instance's files may be the one that nobody could find.
func TestNothingIsLetGoOfAnInstanceInDoubt(t *testing.T) {
	for name, c := range map[string]struct {
		verdict recover.Verdict
		pid     int
		least   float64 // the share of its file system that is to be free
		held    bool
	}{
		"lost, and off":              {recover.VerdictLost, 0, 0, true},
		"lost, and its QEMU runs":    {recover.VerdictLost, 1, 0, true},
		"lost, and space is short":   {recover.VerdictLost, 1, 2, true},
		"unknown":                    {recover.VerdictUnknown, 1, 0, true},
		"unknown, space is short":    {recover.VerdictUnknown, 1, 2, true},
		"intact":                     {recover.VerdictIntact, 1, 0, false},
		"intact, and space is short": {recover.VerdictIntact, 0, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newIncidentBed(t)
			i := recover.Instance{UUID: b.lost.UUID, PID: c.pid, State: recover.StateRunning, Verdict: c.verdict}
			root, err := beneath.OpenRoot("/")
			recovertest.Must(t, err)
			a := &arbiter{runs: runs.Of(t.TempDir()), root: root, holds: b.holds, records: b.records, incidents: b.all, problems: newProblems(),
				nova: &novaSide{problems: newProblems()}, options: func() Options { return Options{MinFree: c.least, Grace: time.Nanosecond} }}
			a.decide(t.Context(), recover.Report{Taken: time.Now().Add(time.Minute), Instances: []recover.Instance{i}})
			if held := len(b.holds.deleted()) == 1; held != c.held {
				t.Errorf("held: %t", held)
			}
		})
	}
}

// A deleted file that its QEMU has open and that is matched to nothing is needed, wherever the
// scan has put it.
func TestAQEMUWithDeletedFilesThatNobodyCanMatchIsAnIncident(t *testing.T) {
	for name, c := range map[string]struct {
		put    func(i *recover.Instance, stray recover.File)
		needed bool
	}{
		"of a name of its own": {func(i *recover.Instance, f recover.File) { i.Files = append(i.Files, f) }, true},
		"of a disk's name":     {func(i *recover.Instance, f recover.File) { i.Nameless = append(i.Nameless, f) }, true},
		"of a run": {func(i *recover.Instance, f recover.File) {
			f.Path = "/i/" + recover.StagePrefix + "x/scratch"
			i.Files = append(i.Files, f)
		}, false},
		"held by somebody else": {func(i *recover.Instance, f recover.File) {
			f.Holders = []recover.Holder{{PID: 2}}
			i.Files = append(i.Files, f)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newIncidentBed(t)
			b.holds.updateEach(func(h *guardHold) { h.Role = recover.RoleOther })
			h := b.holds.deleted()[0]
			i := recover.Instance{UUID: b.lost.UUID, PID: 1, State: recover.StateRunning, Verdict: recover.VerdictUnknown}
			c.put(&i, recover.File{Path: h.Path, Role: recover.RoleOther, State: recover.FileDeleted, Unlinked: true, Device: h.Device,
				Inode: h.Inode, Birth: h.Birth, Holders: []recover.Holder{{PID: 1, FD: 3}}})
			root, err := beneath.OpenRoot("/")
			recovertest.Must(t, err)
			a := &arbiter{runs: runs.Of(t.TempDir()), root: root, holds: b.holds, records: b.records, incidents: b.all, problems: newProblems(),
				nova: &novaSide{}, options: func() Options { return Options{} }}
			for range 2 { // and it goes on
				a.decide(t.Context(), recover.Report{Taken: time.Now().Add(time.Minute), Instances: []recover.Instance{i}})
				if h := b.holds.deleted(); len(h) != 1 || h[0].Needed != c.needed || b.all.any() != c.needed {
					t.Errorf("held %+v, an incident: %t", h, b.all.any())
				}
			}
		})
	}
}
