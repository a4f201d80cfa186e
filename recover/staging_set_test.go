package recover

import "testing"

func TestAnInstanceIsBackWhenEveryFileThatItsGuestWritesIs(t *testing.T) {
	vda, vdb := FilePlan{Path: "/i/disk", Writable: true}, FilePlan{Path: "/i/disk.eph0", Writable: true}
	log := FilePlan{Path: "/i/console.log", Role: RoleConsoleLog}
	for name, c := range map[string]struct {
		prepare func(s *set)
		want    bool
	}{
		"nothing was done": {func(*set) {}, false},
		"all are published": {func(s *set) {
			s.staged = []*stagedFile{{want: vda, published: true}, {want: vdb, kept: true}, {want: log, published: true}}
		}, true},
		"one only waits for its name": {func(s *set) {
			s.staged = []*stagedFile{{want: vda, published: true}, {want: vdb, proven: true}}
		}, false},
		"the console log only waits for its name": {func(s *set) {
			s.staged = []*stagedFile{{want: vda, published: true}, {want: vdb, published: true}, {want: log, proven: true}}
		}, false},
		"the guest was moved onto all": {func(s *set) { s.noteMoved(vda); s.noteMoved(vdb) }, true},
		"the guest was moved onto one": {func(s *set) { s.noteMoved(vda) }, false},
	} {
		w := newTask(&run{}, InstancePlan{Files: []FilePlan{vda, vdb, log}})
		s := newSet(w, nil, nil)
		c.prepare(s)
		if s.areAllBack() {
			t.Errorf("%s: they are all back, and nothing is committed", name)
		}
		must(t, w.enter(eventCommit))
		if got := s.areAllBack(); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
