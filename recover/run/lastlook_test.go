package run_test

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// Its files are back, and nobody would look for it.
func TestAGuestThatEndsAfterItsRescueIsSaidToBeOff(t *testing.T) {
	for point, end := range map[string]func(*recovertest.FakeDomain){
		"unpin.done": (*recovertest.FakeDomain).Off, "run.done": (*recovertest.FakeDomain).Crash,
	} {
		for _, mode := range []recover.Mode{recover.ModeLive, recover.ModeReboot} {
			t.Run(string(mode)+" "+point, func(t *testing.T) {
				h := runtest.NewHost(t)
				g, other := h.Add(1, recovertest.GuestOptions{}), h.Add(2, recovertest.GuestOptions{})
				h.Purge()
				o := recovertest.Options(g, other)
				o.Mode = mode
				e := h.Engine()
				ended := false
				e.Failpoint = func(p string) {
					if p == point && !ended {
						ended = true
						h.HV.Change(g.UUID, end)
					}
				}
				report := runOf(t, e, o)
				r := g.Report(report)
				if said := strings.Join(r.Notes, "\n"); !ended || r.Outcome != recover.OutcomeRescued || strings.Count(said, "is off now") != 1 ||
					!strings.Contains(said, "virsh start "+r.Domain) || strings.Contains(said, "crashed") != (point == "run.done") {
					t.Errorf("%+v", r)
				}
				if r := other.Report(report); strings.Contains(strings.Join(r.Notes, "\n"), "is off now") {
					t.Errorf("the other one: %+v", r)
				}
			})
		}
	}
}

func runOf(t *testing.T, e *run.Engine, o recover.Options) recover.RunReport {
	t.Helper()
	s, err := e.Prepare(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	defer s.Close()
	report, err := s.Execute(t.Context())
	recovertest.Must(t, err)
	return report
}
