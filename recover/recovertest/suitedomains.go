package recovertest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// nobody is a UUID that no domain and no instance has.
const nobody = "00000000-0000-4000-8000-000000000000"

// testLooks: Version, Domains and Domain.
func testLooks(s *hypervisorSuite) {
	version, err := s.hv.Version(s.ctx)
	s.works("Version", err)
	if version == "" || strings.Contains(version, "\n") {
		s.Errorf("the version is no line: %q", version)
	}

	want := map[string]recover.Domain{}
	for kind, c := range map[GuestKind]struct {
		state      recover.DomainState
		persistent bool
	}{
		KindOff:       {recover.StateShutOff, true},
		KindRunning:   {recover.StateRunning, true},
		KindTransient: {recover.StateRunning, false},
	} {
		g := s.guest(kind)
		d := s.domain(g)
		want[g.UUID] = d
		active := c.state != recover.StateShutOff
		if d.UUID != g.UUID || d.Name == "" || d.State != c.state || d.PauseReason != recover.PauseNone || d.Persistent != c.persistent {
			s.Errorf("%s: %+v", kind, d)
		}
		if d.Job != "" || len(d.BlockJobs) != 0 {
			s.Errorf("%s: it has the jobs %q and %v", kind, d.Job, d.BlockJobs)
		}
		for _, target := range []string{"vda", "vdb"} {
			disk := s.disk(d, target)
			top := disk.Chain[0]
			if disk.Device != "disk" || disk.ReadOnly || top.Source != recover.SourceFile || !filepath.IsAbs(top.Path) || top.Format == "" {
				s.Errorf("%s: its disk %s is %+v", kind, target, disk)
			}
			if active && (!disk.ChainKnown || !s.holds(d, top.Path)) {
				s.Errorf("%s: process %d is said to have %+v open", kind, d.PID, disk)
			}
		}
		if active && len(s.disk(d, "vda").Chain) < 2 {
			s.Errorf("%s: its disk vda lies on nothing: %+v", kind, d.Disks)
		}
		if !active && d.PID != 0 {
			s.Errorf("%s: it is off, and process %d is its QEMU", kind, d.PID)
		}
	}

	all, err := s.hv.Domains(s.ctx)
	s.must(err)
	found := map[string]recover.Domain{}
	for _, d := range all {
		if _, twice := found[d.UUID]; twice {
			s.Errorf("%s is listed twice", d.UUID)
		}
		found[d.UUID] = d
	}
	for uuid, d := range want {
		if !reflect.DeepEqual(found[uuid], d) {
			s.Errorf("among all the domain is\n%+v\nand alone\n%+v", found[uuid], d)
		}
	}
}

// testUnknownDomain: ErrNoDomain from every method about one domain, and success where the port
// says so.
func testUnknownDomain(s *hypervisorSuite) {
	for name, err := range errorsAbout(s, nobody) {
		switch name {
		case "EndMirror", "EndExport":
			s.works(name+" of no domain", err)
		default:
			if !errors.Is(err, recover.ErrNoDomain) {
				s.Errorf("%s: error %v, want ErrNoDomain", name, err)
			}
		}
	}
}

// errorsAbout calls every method about one domain, in no order.
func errorsAbout(s *hypervisorSuite, uuid string) map[string]error {
	errs := map[string]error{}
	for name, call := range callsAbout(s, uuid) {
		errs[name] = call(s)
	}
	return errs
}

// callsAbout are the methods about one domain.
func callsAbout(s *hypervisorSuite, uuid string) map[string]func(*hypervisorSuite) error {
	type suite = *hypervisorSuite
	scratch := filepath.Join(s.TempDir(), "scratch")
	empty := filepath.Join(s.TempDir(), "mirror")
	s.must(os.WriteFile(empty, nil, 0o600))
	request := recover.MirrorRequest{Target: "vdb", Path: empty, Format: "raw"}
	return map[string]func(suite) error{
		"Domain":      func(s suite) error { _, err := s.hv.Domain(s.ctx, uuid); return err },
		"XML":         func(s suite) error { _, err := s.hv.XML(s.ctx, uuid); return err },
		"Counters":    func(s suite) error { _, err := s.hv.Counters(s.ctx, uuid); return err },
		"Suspend":     func(s suite) error { return s.hv.Suspend(s.ctx, uuid) },
		"Resume":      func(s suite) error { return s.hv.Resume(s.ctx, uuid) },
		"Freeze":      func(s suite) error { return s.hv.Freeze(s.ctx, uuid, time.Second) },
		"Thaw":        func(s suite) error { return s.hv.Thaw(s.ctx, uuid, time.Second) },
		"Destroy":     func(s suite) error { return s.hv.Destroy(s.ctx, uuid) },
		"Start":       func(s suite) error { return s.hv.Start(s.ctx, uuid, false) },
		"Mirror":      func(s suite) error { return s.hv.Mirror(s.ctx, uuid, request) },
		"MirrorState": func(s suite) error { _, err := s.hv.MirrorState(s.ctx, uuid, "vdb"); return err },
		"Pivot":       func(s suite) error { return s.hv.Pivot(s.ctx, uuid, "vdb") },
		"EndMirror":   func(s suite) error { return s.hv.EndMirror(s.ctx, uuid, "vdb") },
		"Export": func(s suite) error {
			_, err := s.hv.Export(s.ctx, uuid, []recover.ExportDisk{{Target: "vdb", Scratch: scratch}})
			return err
		},
		"EndExport": func(s suite) error { return s.hv.EndExport(s.ctx, uuid) },
	}
}

// testDefinitions: XML is fit for Define, whatever the domain is.
func testDefinitions(s *hypervisorSuite) {
	off := s.guest(KindOff)
	running := s.guest(KindRunning)
	for name, g := range map[string]SuiteGuest{"off": off, "running": running} {
		doc, err := s.hv.XML(s.ctx, g.UUID)
		s.must(err)
		if g.Secret == "" || !strings.Contains(doc, g.Secret) {
			s.Errorf("%s: the definition is without its secret %q", name, g.Secret)
		}
		before := s.domain(g)
		s.works(name+": Define of a domain that is known", s.hv.Define(s.ctx, doc))
		if after := s.domain(g); !reflect.DeepEqual(before, after) {
			s.Errorf("%s: Define changed it to\n%+v\nfrom\n%+v", name, after, before)
		}
		s.must(s.hv.Destroy(s.ctx, g.UUID))
		s.bed.Undefine(s.T, g)
		checkKnown(s, name, g, doc)
	}

	// Without a definition it is the live one, made inactive.
	transient := s.guest(KindTransient)
	doc, err := s.hv.XML(s.ctx, transient.UUID)
	s.must(err)
	if !strings.Contains(doc, transient.Secret) {
		s.Errorf("transient: the definition is without its secret %q", transient.Secret)
	}
	s.must(s.hv.Destroy(s.ctx, transient.UUID))
	checkKnown(s, "transient", transient, doc)

	if err := s.hv.Define(s.ctx, "<domain>"); err == nil {
		s.Error("Define of what is no definition is no error")
	}
}

// checkKnown checks that a definition makes a domain known that is not.
func checkKnown(s *hypervisorSuite, name string, g SuiteGuest, doc string) {
	s.Helper()
	if _, err := s.hv.Domain(s.ctx, g.UUID); !errors.Is(err, recover.ErrNoDomain) {
		s.Errorf("%s: before Define: error %v, want ErrNoDomain", name, err)
	}
	s.must(s.hv.Define(s.ctx, doc))
	d := s.domain(g)
	if d.State != recover.StateShutOff || !d.Persistent || d.PID != 0 || len(d.Disks) < 2 {
		s.Errorf("%s: after Define it is %+v", name, d)
	}
	s.works(name+": Start after Define", s.hv.Start(s.ctx, g.UUID, false))
	s.is(g, name+": after Start", recover.StateRunning, recover.PauseNone)
	again, err := s.hv.XML(s.ctx, g.UUID)
	s.must(err)
	if !strings.Contains(again, g.Secret) {
		s.Errorf("%s: after Define the definition has lost its secret %q", name, g.Secret)
	}
	if name != "transient" && again != doc {
		s.Errorf("%s: the definition is another one now:\n%s\nwas\n%s", name, again, doc)
	}
}

// testPauses: Suspend pauses and flushes, Resume lets it run; both are idempotent.
func testPauses(s *hypervisorSuite) {
	g := s.guest(KindRunning)
	s.works("Resume of what runs", s.hv.Resume(s.ctx, g.UUID))
	s.is(g, "after Resume of what runs", recover.StateRunning, recover.PauseNone)

	s.asked(g)
	for _, when := range []string{"Suspend", "a second Suspend"} {
		s.works(when, s.hv.Suspend(s.ctx, g.UUID))
		s.is(g, "after "+when, recover.StatePaused, recover.PauseUser)
	}
	before, data := s.count(g), s.read(g)
	s.bed.Ask(s.T, g)
	const meanwhile = 300 * time.Millisecond // for a write of a guest that runs on
	time.Sleep(meanwhile)
	if now := s.count(g); !reflect.DeepEqual(now, before) {
		s.Errorf("a guest that is paused wrote: %+v, before %+v", now, before)
	}
	if s.read(g) != data {
		s.Error("the disk of a guest that is paused changed")
	}
	s.works("Resume", s.hv.Resume(s.ctx, g.UUID))
	s.is(g, "after Resume", recover.StateRunning, recover.PauseNone)
	s.written(g, before)
	s.must(s.hv.Suspend(s.ctx, g.UUID))
	if s.read(g) == data {
		s.Error("what the guest wrote before Suspend is not in its file")
	}

	s.must(s.hv.Destroy(s.ctx, g.UUID))
	for name, do := range map[string]func() error{
		"Suspend": func() error { return s.hv.Suspend(s.ctx, g.UUID) },
		"Resume":  func() error { return s.hv.Resume(s.ctx, g.UUID) },
	} {
		if err := do(); err == nil || errors.Is(err, recover.ErrNoDomain) {
			s.Errorf("%s of a domain that is off: error %v", name, err)
		}
	}
	s.is(g, "afterwards", recover.StateShutOff, recover.PauseNone)
}

// testOthersPause: Suspend does nothing to a domain that is paused already.
func testOthersPause(s *hypervisorSuite) {
	g := s.guest(KindStuck)
	s.is(g, "a disk that takes no write", recover.StatePaused, recover.PauseIOError)
	s.works("Suspend", s.hv.Suspend(s.ctx, g.UUID))
	s.is(g, "after Suspend", recover.StatePaused, recover.PauseIOError)
}

// testLives: Start and Destroy.
func testLives(s *hypervisorSuite) {
	g := s.guest(KindOff)
	s.works("Destroy of what is off", s.hv.Destroy(s.ctx, g.UUID))
	s.works("Start", s.hv.Start(s.ctx, g.UUID, false))
	s.is(g, "after Start", recover.StateRunning, recover.PauseNone)
	pid := s.domain(g).PID
	s.works("Start of what is active", s.hv.Start(s.ctx, g.UUID, true))
	if d := s.domain(g); d.State != recover.StateRunning || d.PID != pid || pid == 0 {
		s.Errorf("Start of what is active: it is %s in process %d, and was in %d", d.State, d.PID, pid)
	}

	s.works("Destroy", s.hv.Destroy(s.ctx, g.UUID))
	if d := s.domain(g); d.State != recover.StateShutOff || d.PID != 0 || !d.Persistent {
		s.Errorf("after Destroy: %+v", d)
	}
	checkGone(s, pid)
	s.works("a second Destroy", s.hv.Destroy(s.ctx, g.UUID))

	s.works("Start paused", s.hv.Start(s.ctx, g.UUID, true))
	s.is(g, "after Start paused", recover.StatePaused, recover.PauseUser)
	for target, c := range s.count(g) {
		if c.WriteRequests != 0 || c.WriteBytes != 0 {
			s.Errorf("paused before its first instruction, it has written to %s: %+v", target, c)
		}
	}
	before := s.count(g)
	s.must(s.hv.Resume(s.ctx, g.UUID))
	s.bed.Ask(s.T, g)
	s.written(g, before)
	s.must(s.hv.Suspend(s.ctx, g.UUID))
	s.works("Destroy of what is paused", s.hv.Destroy(s.ctx, g.UUID))
	s.is(g, "after Destroy of what was paused", recover.StateShutOff, recover.PauseNone)

	// A domain whose disk is away does not start, and is not active afterwards.
	path := s.disk(s.domain(g), "vdb").Chain[0].Path
	s.must(os.Rename(path, path+".away"))
	if err := s.hv.Start(s.ctx, g.UUID, false); err == nil {
		s.Error("Start without its disk is no error")
	}
	s.is(g, "after a Start that failed", recover.StateShutOff, recover.PauseNone)

	transient := s.guest(KindTransient)
	pid = s.domain(transient).PID
	s.works("Destroy of a transient domain", s.hv.Destroy(s.ctx, transient.UUID))
	checkGone(s, pid)
	if _, err := s.hv.Domain(s.ctx, transient.UUID); !errors.Is(err, recover.ErrNoDomain) {
		s.Errorf("a transient domain after its end: error %v, want ErrNoDomain", err)
	}
}

// checkGone checks that a process has ended.
func checkGone(s *hypervisorSuite, pid int) {
	s.Helper()
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/fd/0", pid)); err == nil {
		s.Errorf("process %d is there still", pid)
	}
}

// testCounters: of every disk, paused or not, from this QEMU's start.
func testCounters(s *hypervisorSuite) {
	g := s.guest(KindOff)
	if c, err := s.hv.Counters(s.ctx, g.UUID); err == nil || errors.Is(err, recover.ErrNoDomain) {
		s.Errorf("of a domain that is off: %+v, error %v", c, err)
	}
	s.must(s.hv.Start(s.ctx, g.UUID, true))
	before := s.count(g)
	for _, target := range []string{"vda", "vdb"} {
		if _, ok := before[target]; !ok {
			s.Errorf("no counters of %s: %+v", target, before)
		}
	}
	s.must(s.hv.Resume(s.ctx, g.UUID))
	s.bed.Ask(s.T, g)
	s.written(g, before)
	s.asked(g)
	s.must(s.hv.Suspend(s.ctx, g.UUID))
	now := s.count(g)
	for _, target := range []string{"vda", "vdb"} {
		st, err := os.Stat(s.disk(s.domain(g), target).Chain[0].Path)
		s.must(err)
		c := now[target]
		if c.WriteRequests < 2 || c.WriteBytes < c.WriteRequests || c.HighestOffset == 0 || c.HighestOffset > uint64(st.Size()) {
			s.Errorf("%s of a paused domain: %+v; its file has %d bytes", target, c, st.Size())
		}
	}
	// From QEMU, not from a path.
	s.must(os.Remove(s.disk(s.domain(g), "vdb").Chain[0].Path))
	if again := s.count(g); !reflect.DeepEqual(again, now) {
		s.Errorf("with its file deleted: %+v, before %+v", again, now)
	}
}
