package recovertest

import (
	"os"
	"reflect"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// testNextStart: Next tells what the persistent definition names, whatever QEMU has open.
func testNextStart(s *hypervisorSuite) {
	for _, kind := range []GuestKind{KindOff, KindTransient} {
		if d := s.domain(s.guest(kind)); d.Next != nil {
			s.Errorf("%s: its next start would open %+v, and it has no other definition", kind, d.Next)
		}
	}

	g := s.guest(KindRunning)
	d := s.domain(g)
	if d.Next == nil || !reflect.DeepEqual(tops(d.Next.Disks), tops(d.Disks)) {
		s.Fatalf("nothing was redefined: it has %+v, its next start %+v", tops(d.Disks), d.Next)
	}

	// Somebody redefines it with another file while it runs.
	open := s.disk(d, "vdb").Chain[0].Path
	other := open + ".other"
	data, err := os.ReadFile(open)
	s.must(err)
	s.must(os.WriteFile(other, data, 0o600)) //nolint:gosec // a file of the test, which libvirt gives to QEMU
	doc, err := s.hv.XML(s.ctx, g.UUID)
	s.must(err)
	redefined := strings.ReplaceAll(doc, open, other)
	s.works("Define of an active domain", s.hv.Define(s.ctx, redefined))
	after := s.domain(g)
	if !reflect.DeepEqual(after.Disks, d.Disks) || after.PID != d.PID || !s.holds(after, open) {
		s.Errorf("a redefinition changed the guest that runs: %+v", after)
	}
	if after.Next == nil || tops(after.Next.Disks)["vdb"].Path != other || tops(after.Next.Disks)["vda"] != tops(d.Disks)["vda"] {
		s.Errorf("after a redefinition with %s the next start opens %+v", other, after.Next)
	}
	if now, err := s.hv.XML(s.ctx, g.UUID); err != nil || now != redefined {
		s.Errorf("after a redefinition XML is\n%s\n(%v), not\n%s", now, err, redefined)
	}
	all, err := s.hv.Domains(s.ctx)
	s.must(err)
	for _, one := range all {
		if one.UUID == g.UUID && !reflect.DeepEqual(one, after) {
			s.Errorf("among all the domain is\n%+v\nand alone\n%+v", one, after)
		}
	}

	s.must(s.hv.Destroy(s.ctx, g.UUID))
	if off := s.domain(g); off.Next != nil || tops(off.Disks)["vdb"].Path != other {
		s.Errorf("it is off: %+v", off)
	}
	s.must(s.hv.Start(s.ctx, g.UUID, true))
	if started := s.domain(g); !s.holds(started, other) || s.holds(started, open) {
		s.Errorf("it was started on another file than %s", other)
	}
}

// tops returns the top image of each disk, by target.
func tops(disks []recover.Disk) map[string]recover.Image {
	by := map[string]recover.Image{}
	for _, d := range disks {
		by[d.Target] = d.Chain[0]
	}
	return by
}
