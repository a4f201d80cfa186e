package recover

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

func TestAGuardHoldsTheFilesOfEveryInstance(t *testing.T) {
	h := newHost(t)
	running := h.add(1, guestOptions{base: "b1", console: true, config: true})
	off := h.add(2, guestOptions{base: "b1", state: StateShutOff})
	resize := off.dir + "_resize"
	must(t, os.Mkdir(resize, 0o755))
	must(t, os.WriteFile(filepath.Join(resize, "disk"), []byte("old"), 0o600))
	must(t, os.Symlink("/etc/passwd", filepath.Join(off.dir, "link")))
	must(t, os.MkdirAll(filepath.Join(h.settings.InstancesPath, "locks"), 0o755))
	must(t, os.WriteFile(filepath.Join(h.settings.InstancesPath, "locks", "nova-x"), nil, 0o600))
	g := startGuard(h, GuardOptions{}, nil, nil)
	g.awaitScan()
	paths := g.paths()
	for path := range running.content {
		if _, ok := paths[path]; !ok && filepath.Base(path) != diskInfoName {
			t.Errorf("%s is not held", path)
		}
	}
	if _, ok := paths[filepath.Join(resize, "disk")]; !ok {
		t.Error("what a resize can be reverted to is not held")
	}
	for _, path := range []string{filepath.Join(off.dir, "link"), "/etc/passwd", filepath.Join(h.settings.InstancesPath, "locks/nova-x")} {
		if _, ok := paths[path]; ok {
			t.Errorf("%s is held", path)
		}
	}
	// A file that comes later, and one that is renamed.
	late := filepath.Join(running.dir, "disk.eph0")
	must(t, os.WriteFile(late, []byte("x"), 0o600))
	must(t, os.Rename(resize, off.dir+"_del"))
	g.await("the new names", func(GuardStatus) bool {
		p := g.paths()
		_, one := p[late]
		_, two := p[filepath.Join(off.dir+"_del", "disk")]
		return one && two
	})
	if st := g.Status(); st.Held.DeletedFiles != 0 || len(st.Incidents) != 0 || len(st.Problems) != 0 {
		t.Errorf("nothing happened, and it says %+v", st)
	}
}

// The guard is there, the guest and libvirt's knowledge of it are not.
func TestAGuestComesBackFromTheGuardAlone(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{base: "b1", console: true, config: true})
	g := startGuard(h, GuardOptions{}, nil, nil)
	g.awaitScan()
	h.purge()
	g.await("the incident", func(s GuardStatus) bool { return len(s.Incidents) == 1 })
	v.forgotten()
	report, err := h.scanAll(t.Context())
	must(t, err)
	if len(report.Instances) != 1 || report.Instances[0].Verdict != VerdictRecoverable {
		t.Fatalf("the scan says %+v", report.Instances)
	}
	ran, err := h.run(t.Context(), CommandRescue, offlineOf(v))
	must(t, err)
	if ran.Instances[0].Outcome != OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	hasContent(t, v)
	if d := h.hv.get(v.uuid); d.State != StateRunning {
		t.Errorf("it is %s", d.State)
	}
	s := g.await("the end of the incident", func(s GuardStatus) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
	if s.Released[keeper.ReleasedProven] == 0 {
		t.Errorf("it released %v", s.Released)
	}
}

func TestAStoppedGuestsFilesComeBackAndItStaysOff(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{base: "b1", console: true})
	g := startGuard(h, GuardOptions{}, nil, nil)
	g.awaitScan()
	v.destroyed()
	g.await("it is off", func(s GuardStatus) bool { return s.Report.Instances[0].State == StateShutOff })
	h.purge()
	g.await("the incident", func(s GuardStatus) bool { return len(s.Incidents) == 1 })
	ran, err := h.run(t.Context(), CommandRescue, offlineOf(v))
	must(t, err)
	if ran.Instances[0].Outcome != OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	hasContent(t, v)
	if d := h.hv.get(v.uuid); d.State != StateShutOff {
		t.Errorf("it is %s", d.State)
	}
}

// What an instance loses in an incident besides its disks is held with them, and
// goes back with them.
func TestFilesThatNoDefinitionNamesGoBackWithTheOthers(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{base: "b1"})
	for name, path := range map[string]string{
		"kernel":   filepath.Join(v.dir, "kernel"),
		"old":      filepath.Join(v.dir+"_resize", "disk"),
		"unrescue": filepath.Join(v.dir, "unrescue.xml"),
	} {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(name), 0o640))
		v.content[path] = []byte(name)
	}
	g := startGuard(h, GuardOptions{}, nil, nil)
	g.awaitScan()
	h.purge()
	g.await("the incident", func(s GuardStatus) bool { return len(s.Incidents) == 1 })
	time.Sleep(time.Second) // longer than settled
	ran, err := h.run(t.Context(), CommandRescue, offlineOf(v))
	must(t, err)
	if ran.Instances[0].Outcome != OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	hasContent(t, v)
	g.await("the end of the incident", func(s GuardStatus) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
}

func TestTwoGuardsAreOneTooMany(t *testing.T) {
	h := newHost(t)
	startGuard(h, GuardOptions{}, nil, nil)
	second, err := NewGuard(GuardDeps{Settings: h.settings, Hypervisor: h.hv}, GuardOptions{}, nil, nil)
	must(t, err)
	if err := second.Run(t.Context(), func() {}); !errors.Is(err, keeper.ErrRunning) {
		t.Errorf("the second one says %v", err)
	}
}
