package recovertest

import (
	"errors"
	"os"

	"github.com/os-rescue/os-rescue/recover"
)

// testStartNeeds: what has just been started, or could be, needs files that exist, and
// lacks nothing.
func testStartNeeds(s *hypervisorSuite) {
	for _, kind := range []GuestKind{KindOff, KindRunning} {
		needs, err := s.hv.StartNeeds(s.ctx, s.guest(kind).UUID)
		s.must(err)
		if len(needs.Lacking) > 0 {
			s.Errorf("%s: the host lacks %q", kind, needs.Lacking)
		}
		runs := 0
		for _, f := range needs.Files {
			st, err := os.Stat(f.Path)
			s.works(f.What, err)
			if f.Executable {
				runs++
			}
			if err == nil && f.Executable && st.Mode()&0o111 == 0 {
				s.Errorf("%s: %s (%s) can't be run", kind, f.What, f.Path)
			}
		}
		if runs != 1 {
			s.Errorf("%s: not one emulator: %+v", kind, needs.Files)
		}
	}
	if _, err := s.hv.StartNeeds(s.ctx, "00000000-0000-4000-8000-00000000dead"); !errors.Is(err, recover.ErrNoDomain) {
		s.Errorf("of a domain that nobody knows: %v", err)
	}
}
