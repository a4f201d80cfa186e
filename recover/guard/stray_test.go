package guard_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// The disks were moved to other names and removed there before the guard began: only its QEMU
// had them, and after that only the guard.
func TestDeletedFilesThatNobodyCanMatchAreHeldBeyondTheEndOfTheirQEMU(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	second := filepath.Join(v.Dir, "disk.eph0")
	recovertest.Must(t, os.WriteFile(second, recovertest.Payload(78, 96<<10), 0o600))
	h.HV.Change(v.UUID, func(d *recovertest.FakeDomain) {
		d.Disks = append(d.Disks, recover.Disk{Target: "vdb", Device: "disk", ChainKnown: true,
			Chain: []recover.Image{{Source: recover.SourceFile, Path: second, Format: "raw"}}})
	})
	recovertest.Must(t, h.HV.Start(t.Context(), v.UUID, false))
	away := filepath.Join(filepath.Dir(h.Settings.InstancesPath), "away")
	recovertest.Must(t, os.Mkdir(away, 0o755))
	for n, path := range []string{v.Disk, second} {
		to := filepath.Join(away, []string{"a", "b"}[n])
		recovertest.Must(t, os.Rename(path, to))
		recovertest.Must(t, os.Remove(to))
	}
	h.Online()
	g := startGuard(h, guard.Options{Lock: true, MinFree: 2}, nil, nil) // there is never enough free space
	s := g.await("the incident, and the lock", func(s guard.Status) bool { return len(s.Incidents) == 1 && s.Incidents[0].Locked })
	if s.Incidents[0].Bytes == 0 || s.Held.DeletedFiles != 2 {
		t.Errorf("the incident is %+v, held are %d", s.Incidents[0], s.Held.DeletedFiles)
	}
	v.Destroyed()
	s = g.await("it is off", func(s guard.Status) bool { return s.Report.Instances[0].State == recover.StateShutOff })
	time.Sleep(1500 * time.Millisecond) // in which they could have been let go
	s = g.Status()
	if s.Held.DeletedFiles != 2 || len(s.Released) != 0 || len(s.Incidents) != 1 {
		t.Errorf("held %+v, released %v, incidents %+v", s.Held, s.Released, s.Incidents)
	}
	i := h.Scan(v)
	if said := strings.Join(i.Reasons, "; "); i.Verdict != recover.VerdictUnknown || len(i.Possible) == 0 ||
		!strings.Contains(said, "may be one of its disks: "+away+"/a") || !strings.Contains(said, away+"/b") {
		t.Errorf("it is %s: %s; %q", i.Verdict, said, i.Possible)
	}
}
