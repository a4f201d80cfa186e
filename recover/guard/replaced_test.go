package guard_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// Nova's rebuild and an accident look alike in the end: the disk of an instance that is off
// was deleted, and another file stands at its path. What tells them apart is that Nova
// undefines the domain in between.
func TestAnotherFileInPlaceOfADeletedDiskOfAnInstanceThatIsOff(t *testing.T) {
	for name, c := range map[string]struct {
		nova, undefined bool
		want            recover.Verdict
	}{
		"a rebuild":                 {nova: true, undefined: true, want: recover.VerdictIntact},
		"a rebuild, without Nova":   {undefined: true, want: recover.VerdictIntact},
		"an accident":               {nova: true, want: recover.VerdictConflict},
		"an accident, without Nova": {want: recover.VerdictConflict},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			v := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
			if c.nova {
				h.Online()
			}
			g := startGuard(h, guard.Options{}, nil, nil)
			g.awaitScan()
			xml, err := h.HV.XML(t.Context(), v.UUID)
			recovertest.Must(t, err)
			if c.nova {
				h.Cloud.Change(v.UUID, func(s *recovertest.FakeServer) { s.TaskState = "rebuilding" })
			}
			recovertest.Must(t, os.Remove(v.Disk))
			if c.undefined {
				v.Forgotten()
				g.await("it is seen without a domain", func(s guard.Status) bool {
					return len(s.Report.Instances) == 0 ||
						strings.Contains(strings.Join(s.Report.Instances[0].Reasons, ""), "libvirt no longer knows its domain")
				})
			}
			recovertest.Must(t, os.WriteFile(v.Disk, []byte("another"), 0o600))
			if c.undefined {
				recovertest.Must(t, h.HV.Define(t.Context(), xml))
			}
			if c.nova {
				h.Cloud.Change(v.UUID, func(s *recovertest.FakeServer) { s.TaskState = "" })
			}
			if c.want == recover.VerdictConflict {
				g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 1 })
				time.Sleep(600 * time.Millisecond) // in which it could have been let go
				if s := g.Status(); s.Held.DeletedFiles != 1 || s.Report.Instances[0].Verdict != c.want {
					t.Errorf("%d deleted files are held, and it is %s", s.Held.DeletedFiles, s.Report.Instances[0].Verdict)
				}
				recovertest.Must(t, guard.ReleaseByHand(t.Context(), h.Settings.StateDir, v.UUID))
				g.await("the operator's word", func(s guard.Status) bool {
					return len(s.Incidents) == 0 && s.Report.Instances[0].Verdict == recover.VerdictIntact
				})
				return
			}
			g.await("it is intact", func(s guard.Status) bool {
				return len(s.Report.Instances) == 1 && s.Report.Instances[0].Verdict == c.want
			})
			if v := h.Scan(v).Verdict; v != c.want {
				t.Errorf("a scan says %s", v)
			}
			if c.nova {
				g.await("it is let go", func(s guard.Status) bool { return s.Released[keeper.ReleasedUnneeded] == 1 })
			}
			if s := g.Status(); len(s.Incidents) != 0 {
				t.Errorf("incidents: %+v", s.Incidents)
			}
		})
	}
}

// The guard knows a file that was renamed by the path that its instance has it by.
func TestARenamedDiskOfAnInstanceThatIsOffIsNotLost(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{})
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	recovertest.Must(t, os.Rename(v.Disk, v.Disk+".bak"))
	g.await("it is seen", func(s guard.Status) bool { return s.Report.Instances[0].Verdict == recover.VerdictDisplaced })
	v.Destroyed()
	g.await("it is off", func(s guard.Status) bool { return s.Report.Instances[0].State == recover.StateShutOff })
	if i := h.Scan(v); i.Verdict != recover.VerdictDisplaced || i.Files[0].Found != v.Disk+".bak" {
		t.Errorf("it is %s: %+v", i.Verdict, i.Files)
	}
}

// Where a name leads out of the instances directory before the guard starts, nobody but the guest
// has the file: what is deleted there, once the guest is off, is held all the same.
func TestAFileThatWasRenamedAwayBeforeTheGuardStartedIsHeld(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{Base: "b1"})
	away := filepath.Join(filepath.Dir(h.Settings.InstancesPath), "away")
	recovertest.Must(t, os.Mkdir(away, 0o755))
	for _, path := range []string{v.Disk, v.Base} {
		recovertest.Must(t, os.Rename(path, filepath.Join(away, filepath.Base(path))))
	}
	g := startGuard(h, guard.Options{}, nil, nil)
	g.await("both are held", func(s guard.Status) bool { return s.Held.Files == 2 })
	recovertest.Must(t, os.RemoveAll(away))
	v.Destroyed()
	g.await("both are lost and held", func(s guard.Status) bool {
		return s.Held.DeletedFiles == 2 && s.Report.Instances[0].State == recover.StateShutOff
	})
	ran, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
	recovertest.Must(t, err)
	if r := v.Report(ran); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	hasContent(t, v)
}
