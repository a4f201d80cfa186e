package run_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// What can't be brought back to its path, its QEMU has open: that is enough for a backup.
func TestABackupHasWhatIsDisplaced(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	pid := h.HV.Get(g.UUID).PID
	recovertest.Must(t, os.Rename(g.Dir, g.Dir+".old"))
	if v := h.Scan(g).Verdict; v != recover.VerdictDisplaced {
		t.Fatalf("it is %s", v)
	}
	dir, report := backUp(h, t, nil, g)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
	m, err := manifest.Read(dir, "")
	recovertest.Must(t, err)
	entry, _ := m.Find(g.UUID)
	found := 0
	for _, f := range entry.Files {
		if f.Path != g.Disk && f.Path != g.Base {
			continue
		}
		found++
		if data, err := os.ReadFile(filepath.Join(dir, f.Stored)); err != nil || !bytes.Equal(data, g.Content[f.Path]) {
			t.Errorf("%s has other content (%v)", f.Stored, err)
		}
	}
	if found != 2 {
		t.Errorf("the backup has %+v", entry.Files)
	}
}
