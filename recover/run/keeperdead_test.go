package run_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// The death of a keeper in the middle of a run frees nothing, and the run goes on only while
// everything is held by another one.
func TestAKeeperThatDiesInARunIsReplacedBeforeTheDestroy(t *testing.T) {
	for _, point := range []string{"pin.done", "ahead.begin", "suspend.done", "destroy.begin"} {
		for _, again := range []bool{true, false} {
			if point == "destroy.begin" && !again {
				continue // it is under way
			}
			name := point
			if !again {
				name += ", and no other one can be had"
			}
			t.Run(name, func(t *testing.T) {
				h := runtest.NewHost(t)
				g := h.Add(1, recovertest.GuestOptions{Base: "b"})
				pid := h.HV.Get(g.UUID).PID
				h.Purge()
				held, killed, end := 0, false, time.Now().Add(patience.Limit())
				e := h.Engine()
				e.Failpoint = func(at string) {
					if at == point && !killed {
						killed = true
						if !again { // a keeper refuses a directory that others can write
							recovertest.Must(t, os.Chmod(h.Settings.StateDir, 0o777))
						}
						h.KillKeeper()
					}
					for at == "destroy.done" && held <= 0 && time.Now().Before(end) { // noticed at once, and then one has to start
						held = g.Pinned()
					}
				}
				t.Cleanup(func() { recovertest.Must(t, os.Chmod(h.Settings.StateDir, 0o700)) })
				s, err := e.Prepare(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
				if err != nil && !again {
					return // before the plan
				}
				recovertest.Must(t, err)
				defer s.Close()
				report, err := s.Execute(t.Context())
				recovertest.Must(t, err)
				r := g.Report(report)
				if !killed {
					t.Fatal("the point was not passed")
				}
				if again {
					if r.Outcome != recover.OutcomeRescued || held == 0 {
						t.Errorf("%s: %s; held at the destroy: %d", r.Outcome, r.Error, held)
					}
					recovertest.Must(t, g.Serving(recover.StateRunning))
					return
				}
				if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "by its QEMU alone, so do not stop it") {
					t.Errorf("%s: %s", r.Outcome, r.Error)
				}
				recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
			})
		}
	}
}

// A run that was killed has no watch over the keeper any more: what the other tests of a kill
// rely on.
func TestAKilledRunStartsNoKeeper(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Purge()
	killedAt(t, h, recover.CommandRescue, recovertest.Options(g), "suspend.done")
	h.KillKeeper()
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if n := g.Pinned(); n > 0 {
			t.Fatalf("%d files are held again", n)
		}
	}
}
