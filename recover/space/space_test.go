package space_test

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestSpaceIsCheckedBeforeTheFirstPause(t *testing.T) {
	// Each guest's disk takes 96 KiB, and its copy, without the hole, 72 KiB.
	for name, c := range map[string]struct {
		size     string
		guests   int
		headroom float64
		fit      []bool
		oneByOne bool
	}{
		"all fit at once":                     {"2m", 2, 0, []bool{true, true}, false},
		"one by one":                          {"352k", 2, 0, []bool{true, true}, true},
		"not even one alone":                  {"160k", 1, 0, []bool{false}, true},
		"the headroom counts":                 {"2m", 1, 0.95, []bool{false}, true},
		"one by one, of three at a time even": {"512k", 3, 0, []bool{true, true, true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.SmallHost(t, c.size)
			h.Settings.Headroom = c.headroom
			var all []*recovertest.Guest
			for n := range c.guests {
				all = append(all, h.Add(n+1, recovertest.GuestOptions{}))
			}
			h.Purge()
			o := recovertest.Options(all...)
			o.Parallel = 3
			s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, o)
			recovertest.Must(t, err)
			defer s.Close()
			plan := s.Plan()
			if plan.OneByOne != c.oneByOne || len(plan.Space) == 0 {
				t.Errorf("one by one: %v; %+v", plan.OneByOne, plan.Space)
			}
			report, err := s.Execute(t.Context())
			recovertest.Must(t, err)
			for n, g := range all {
				r := g.Report(report)
				if (r.Outcome == recover.OutcomeRescued) != c.fit[n] || !c.fit[n] && !strings.Contains(r.Error, recover.ErrNoSpace.Error()) {
					t.Errorf("%d: %+v", n, r)
				}
				if !c.fit[n] && h.HV.Called("suspend", g.UUID) > 0 {
					t.Errorf("%d was paused for nothing", n)
				}
				if c.fit[n] {
					if err := g.Serving(recover.StateRunning); err != nil {
						t.Errorf("%d: %v", n, err)
					}
				}
			}
		})
	}
}
