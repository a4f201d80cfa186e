package staging

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

func TestAnInstanceIsBackWhenEveryFileThatItsGuestWritesIs(t *testing.T) {
	vda, vdb := recover.FilePlan{Path: "/i/disk", Writable: true}, recover.FilePlan{Path: "/i/disk.eph0", Writable: true}
	log := recover.FilePlan{Path: "/i/console.log", Role: recover.RoleConsoleLog}
	for name, c := range map[string]struct {
		prepare func(s *Set)
		want    bool
	}{
		"nothing was done": {func(*Set) {}, false},
		"all are published": {func(s *Set) {
			s.staged = []*stagedFile{{want: vda, published: true}, {want: vdb, kept: true}, {want: log, published: true}}
		}, true},
		"one only waits for its name": {func(s *Set) {
			s.staged = []*stagedFile{{want: vda, published: true}, {want: vdb, proven: true}}
		}, false},
		"the console log only waits for its name": {func(s *Set) {
			s.staged = []*stagedFile{{want: vda, published: true}, {want: vdb, published: true}, {want: log, proven: true}}
		}, false},
		"the guest was moved onto all": {func(s *Set) { s.NoteMoved(vda, true); s.NoteMoved(vdb, true) }, true},
		"the guest was moved onto one": {func(s *Set) { s.NoteMoved(vda, true) }, false},
	} {
		w := task.New(&task.Run{}, recover.InstancePlan{Files: []recover.FilePlan{vda, vdb, log}})
		s := NewSet(w, nil, nil)
		c.prepare(s)
		if s.AreAllBack() {
			t.Errorf("%s: they are all back, and nothing is committed", name)
		}
		recovertest.Must(t, w.Enter(t.Context(), task.EventCommit))
		if got := s.AreAllBack(); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
