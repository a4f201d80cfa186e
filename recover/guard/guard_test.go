package guard_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestAGuardHoldsTheFilesOfEveryInstance(t *testing.T) {
	h := runtest.NewHost(t)
	running := h.Add(1, recovertest.GuestOptions{Base: "b1", Console: true, Config: true})
	off := h.Add(2, recovertest.GuestOptions{Base: "b1", State: recover.StateShutOff})
	resize := off.Dir + "_resize"
	recovertest.Must(t, os.Mkdir(resize, 0o755))
	recovertest.Must(t, os.WriteFile(filepath.Join(resize, "disk"), []byte("old"), 0o600))
	recovertest.Must(t, os.Symlink("/etc/passwd", filepath.Join(off.Dir, "link")))
	recovertest.Must(t, os.MkdirAll(filepath.Join(h.Settings.InstancesPath, "locks"), 0o755))
	recovertest.Must(t, os.WriteFile(filepath.Join(h.Settings.InstancesPath, "locks", "nova-x"), nil, 0o600))
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	paths := g.paths()
	for path := range running.Content {
		if _, ok := paths[path]; !ok && filepath.Base(path) != recover.DiskInfoName {
			t.Errorf("%s is not held", path)
		}
	}
	if _, ok := paths[filepath.Join(resize, "disk")]; !ok {
		t.Error("what a resize can be reverted to is not held")
	}
	for _, path := range []string{filepath.Join(off.Dir, "link"), "/etc/passwd", filepath.Join(h.Settings.InstancesPath, "locks/nova-x")} {
		if _, ok := paths[path]; ok {
			t.Errorf("%s is held", path)
		}
	}
	// A file that comes later, and one that is renamed.
	late := filepath.Join(running.Dir, "disk.eph0")
	recovertest.Must(t, os.WriteFile(late, []byte("x"), 0o600))
	recovertest.Must(t, os.Rename(resize, off.Dir+"_del"))
	g.await("the new names", func(guard.Status) bool {
		p := g.paths()
		_, one := p[late]
		_, two := p[filepath.Join(off.Dir+"_del", "disk")]
		return one && two
	})
	if st := g.Status(); st.Held.DeletedFiles != 0 || len(st.Incidents) != 0 || len(st.Problems) != 0 {
		t.Errorf("nothing happened, and it says %+v", st)
	}
}

// The guard is there, the guest and libvirt's knowledge of it are not.
func TestAGuestComesBackFromTheGuardAlone(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{Base: "b1", Console: true, Config: true})
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	h.Purge()
	g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 1 })
	v.Forgotten()
	report, err := h.ScanAll(t.Context())
	recovertest.Must(t, err)
	if len(report.Instances) != 1 || report.Instances[0].Verdict != recover.VerdictRecoverable {
		t.Fatalf("the scan says %+v", report.Instances)
	}
	ran, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
	recovertest.Must(t, err)
	if ran.Instances[0].Outcome != recover.OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	hasContent(t, v)
	if d := h.HV.Get(v.UUID); d.State != recover.StateRunning {
		t.Errorf("it is %s", d.State)
	}
	s := g.await("the end of the incident", func(s guard.Status) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
	if s.Released[keeper.ReleasedProven] == 0 {
		t.Errorf("it released %v", s.Released)
	}
}

func TestAStoppedGuestsFilesComeBackAndItStaysOff(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{Base: "b1", Console: true})
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	v.Destroyed()
	g.await("it is off", func(s guard.Status) bool { return s.Report.Instances[0].State == recover.StateShutOff })
	h.Purge()
	g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 1 })
	ran, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
	recovertest.Must(t, err)
	if ran.Instances[0].Outcome != recover.OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	hasContent(t, v)
	if d := h.HV.Get(v.UUID); d.State != recover.StateShutOff {
		t.Errorf("it is %s", d.State)
	}
}

// What an instance loses in an incident besides its disks is held with them, and
// goes back with them.
func TestFilesThatNoDefinitionNamesGoBackWithTheOthers(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{Base: "b1"})
	for name, path := range map[string]string{
		"kernel":   filepath.Join(v.Dir, "kernel"),
		"old":      filepath.Join(v.Dir+"_resize", "disk"),
		"unrescue": filepath.Join(v.Dir, "unrescue.xml"),
	} {
		recovertest.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		recovertest.Must(t, os.WriteFile(path, []byte(name), 0o640))
		v.Content[path] = []byte(name)
	}
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	h.Purge()
	g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 1 })
	time.Sleep(time.Second) // longer than settled
	ran, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
	recovertest.Must(t, err)
	if ran.Instances[0].Outcome != recover.OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	hasContent(t, v)
	g.await("the end of the incident", func(s guard.Status) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
}

// Nova has fetched the kernel again before the run.
func TestAKernelThatIsThereAgainEndsWithTheIncident(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{})
	kernel := filepath.Join(v.Dir, "kernel")
	h.HV.Change(v.UUID, func(d *recovertest.FakeDomain) { d.Boot = recover.BootFiles(kernel, "", "") })
	recovertest.Must(t, os.WriteFile(kernel, []byte("kernel"), 0o640))
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	h.Purge()
	g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 1 && s.Held.DeletedFiles == 2 })
	recovertest.Must(t, os.MkdirAll(v.Dir, 0o755))
	recovertest.Must(t, os.WriteFile(kernel, []byte("fetched"), 0o640))
	if i := h.Scan(v); i.Verdict != recover.VerdictRecoverable || len(i.Superseded) > 0 {
		t.Errorf("%s %v", i.Verdict, i.Reasons)
	}
	ran, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
	recovertest.Must(t, err)
	if ran.Instances[0].Outcome != recover.OutcomeRescued || len(ran.Warnings) > 0 {
		t.Fatalf("it says %+v", ran)
	}
	g.await("the end of the incident", func(s guard.Status) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
	if i := h.Scan(v); i.Verdict != recover.VerdictIntact {
		t.Errorf("%s %v", i.Verdict, i.Reasons)
	}
}

func TestTwoGuardsAreOneTooMany(t *testing.T) {
	h := runtest.NewHost(t)
	startGuard(h, guard.Options{}, nil, nil)
	second, err := guard.New(guard.Deps{Settings: h.Settings, Hypervisor: h.HV}, guard.Options{}, nil, nil)
	recovertest.Must(t, err)
	if err := second.Run(t.Context(), func() {}); !errors.Is(err, keeper.ErrRunning) {
		t.Errorf("the second one says %v", err)
	}
}
