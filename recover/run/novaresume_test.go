package run_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// brought checks that an instance is back in service after a run and its resume:
// in Nova and in libvirt, with its data, rebooted exactly once.
func brought(t *testing.T, where string, h *runtest.Host, g *recovertest.Guest, run string, found recover.DomainState, locked bool) {
	t.Helper()
	vm := recover.VMActive
	if found == recover.StatePaused {
		vm = recover.VMPaused
	}
	if err := g.Serving(found); err != nil {
		t.Errorf("%s: %v", where, err)
	}
	if err := h.Cloud.In(g.UUID, vm, locked, 1); err != nil {
		t.Errorf("%s: %v", where, err)
	}
	if n := h.HV.Called("destroy", g.UUID); n != 1 {
		t.Errorf("%s: destroyed %d times", where, n)
	}
	if left := h.Staged(); len(left) > 0 {
		t.Errorf("%s: left behind: %v", where, left)
	}
	if n := g.Pinned(); n != 0 {
		t.Errorf("%s: the keeper still holds %d files", where, n)
	}
	if status, err := h.Runs().Find(run); err != nil || status.State != recover.RunFinished {
		t.Errorf("%s: the run is %s, %v", where, status.State, err)
	}
}

// firstOnline runs a rescue with Nova that nothing disturbs, and returns the number
// of its first journal record of that name.
func firstOnline(t *testing.T, first *runtest.Host, add recovertest.GuestOptions, point string) int {
	t.Helper()
	h := first.Elsewhere(t)
	g := h.Add(900, add)
	h.Online()
	h.Purge()
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	said := runtest.Points(h.Journal(report.Run))
	n := slices.Index(said, point)
	if n < 0 {
		t.Fatalf("no record %s in %v", point, said)
	}
	h.HV.EndAll()
	return n + 1
}

// Every point that a run with Nova adds, and all between them.
func TestResumeOnlineAfterKill9AtEveryJournalPointRebootsOnceAndUnlocks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		state  recover.DomainState
		locked bool
		from   string
	}{
		"running":                 {recover.StateRunning, false, "lock.begin"},
		"paused and found locked": {recover.StatePaused, true, "destroy.begin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := runtest.NewHost(t)
			add := recovertest.GuestOptions{Base: "b", Agent: true, State: c.state}
			for k := firstOnline(t, first, add, c.from); ; k++ {
				h := first.Elsewhere(t)
				add.Base = fmt.Sprint("b", k)
				g := h.Add(k, add)
				cloud := h.Online()
				if c.locked {
					cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.Locked, s.LockedReason = true, "the owner's" })
				}
				h.Purge()
				run, point := h.CrashAt(recover.CommandRescue, recovertest.Options(g), k)
				if run == "" {
					if k < 20 {
						t.Fatalf("only %d journal points", k)
					}
					return
				}
				if point == "run.done" {
					continue
				}
				where := fmt.Sprintf("%d %s", k, point)
				report, err := h.Resume(t.Context(), run)
				if err != nil {
					t.Errorf("%s: %v", where, err)
				} else if r := g.Report(report); r.Outcome != recover.OutcomeRescued && r.Outcome != recover.OutcomeIntact {
					t.Errorf("%s: %+v", where, r)
				}
				brought(t, where, h, g, run, c.state, c.locked)
				h.HV.EndAll()
			}
		})
	}
}

// A kill between what Nova did and what the run could note of it.
func TestResumeOnlineAfterKill9AroundEveryRequestRebootsOnceAndUnlocks(t *testing.T) {
	t.Parallel()
	for state, from := range map[recover.DomainState]string{recover.StateRunning: "before Lock", recover.StatePaused: "before HardReboot"} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			first := runtest.NewHost(t)
			for k := int32(1); ; k++ {
				h := first.Elsewhere(t)
				g := h.Add(int(k), recovertest.GuestOptions{State: state})
				cloud := h.Online()
				h.Purge()
				var n atomic.Int32
				id, point := h.CrashIn(recover.CommandRescue, recovertest.Options(g), func(_ *run.Engine, here func(string)) {
					cloud.Point = func(point string) {
						if n.Load() == 0 && point != from {
							return
						}
						if n.Add(1) == k {
							here(point)
						}
					}
				})
				cloud.Point = nil
				if id == "" {
					if k < 10 {
						t.Fatalf("only %d points around requests", k)
					}
					return
				}
				where := fmt.Sprintf("%d %s", k, point)
				report, err := h.Resume(t.Context(), id)
				if err != nil {
					t.Errorf("%s: %v", where, err)
				} else if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
					t.Errorf("%s: %+v", where, r)
				}
				brought(t, where, h, g, id, state, false)
				h.HV.EndAll()
			}
		})
	}
}

func TestResumeOfARebootAfterKill9RebootsExactlyOnce(t *testing.T) {
	t.Parallel()
	for _, remote := range []bool{false, true} {
		t.Run(fmt.Sprintf("remote=%t", remote), func(t *testing.T) {
			t.Parallel()
			first := runtest.NewHost(t)
			for k := int32(1); ; k++ {
				h := first.Elsewhere(t)
				g := h.Add(int(k), recovertest.GuestOptions{})
				cloud := h.Online()
				o := recovertest.Options(g)
				if remote {
					o.Reboot = remotely(h)
				}
				var n atomic.Int32
				id, point := h.CrashIn(recover.CommandReboot, o, func(e *run.Engine, here func(string)) {
					at := func(point string) {
						if n.Add(1) == k {
							here(point)
						}
					}
					cloud.Point, e.Failpoint = at, at
				})
				if id == "" {
					if k < 12 {
						t.Fatalf("only %d points", k)
					}
					return
				}
				where := fmt.Sprintf("%d %s", k, point)
				planned := slices.Contains(runtest.Points(h.Journal(id)), "plan.done")
				cloud.Point = nil
				report, err := h.Resume(t.Context(), id)
				want := 1
				switch {
				case point == "run.done":
				case remote && !planned: // the scans are gone
					want = 0
					if err == nil {
						t.Errorf("%s: it was resumed without its scans: %+v", where, report)
					}
				case err != nil:
					t.Errorf("%s: %v", where, err)
				case g.Report(report).Outcome != recover.OutcomeRescued:
					t.Errorf("%s: %+v", where, report)
				}
				if err := cloud.In(g.UUID, recover.VMActive, false, want); err != nil {
					t.Errorf("%s: %v", where, err)
				}
				h.HV.EndAll()
			}
		})
	}
}

// remotely is how another place reboots this host's instances, by a scan made now.
func remotely(h *runtest.Host) recover.RebootOptions {
	h.T.Helper()
	scan, err := h.ScanAll(h.T.Context())
	recovertest.Must(h.T, err)
	return recover.RebootOptions{Remote: true, Reports: []recover.Report{scan}, MaxAge: 600e9}
}

// crashOnline kills a rescue at the first record of that name.
func crashOnline(t *testing.T, add recovertest.GuestOptions, point string) (*runtest.Host, *recovertest.Guest, string) {
	t.Helper()
	first := runtest.NewHost(t)
	h := first.Elsewhere(t)
	g := h.Add(1, add)
	h.Online()
	h.Purge()
	id, _ := h.CrashIn(recover.CommandRescue, recovertest.Options(g), func(e *run.Engine, here func(string)) {
		e.Failpoint = func(p string) {
			if p == point {
				here(p)
			}
		}
	})
	if id == "" {
		t.Fatalf("it was never at %s", point)
	}
	return h, g, id
}

func resumeOffline(ctx context.Context, h *runtest.Host, run string) (recover.RunReport, error) {
	h.T.Helper()
	s, err := h.Engine().PrepareResume(ctx, run, true)
	if err != nil {
		return recover.RunReport{}, err
	}
	defer s.Close()
	return s.Execute(ctx)
}

// It was paused again before the kill: who lets it go on after that means it.
func TestResumeDoesNotPauseAGuestThatSomebodyLetGoOnSince(t *testing.T) {
	h, g, run := crashOnline(t, recovertest.GuestOptions{State: recover.StatePaused}, "unpin.done")
	recovertest.Must(t, h.HV.Resume(t.Context(), g.UUID))
	h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.To(recover.VMActive) })
	report, err := h.Resume(t.Context(), run)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	brought(t, "", h, g, run, recover.StateRunning, false)
}

// The domain is off at the first look and runs at the second.
func TestResumeInTheMiddleOfARebootWaitsForItsEnd(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	cloud := h.Online()
	cloud.Taking = 6
	h.Purge()
	id, _ := h.CrashIn(recover.CommandRescue, recovertest.Options(g), func(_ *run.Engine, here func(string)) {
		cloud.Point = func(point string) {
			if point == "after HardReboot" {
				here(point)
			}
		}
	})
	cloud.Point = nil
	h.HV.Before = func(method, uuid string) {
		if method == "xml" { // the run takes it for off, and saves its definition
			for cloud.Get(uuid).TaskState != "" {
				_, _ = cloud.Server(t.Context(), uuid)
			}
		}
	}
	report, err := h.Resume(t.Context(), id)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	brought(t, "", h, g, id, recover.StateRunning, false)
}

// TestAVariableStoreThatNovaMadeAnewKeepsNoRunFromItsEnd: the guest has everything else, and
// that Nova resets its variable store was agreed to.
func TestAVariableStoreThatNovaMadeAnewKeepsNoRunFromItsEnd(t *testing.T) {
	for what, lose := range map[string]func(g *recovertest.Guest) string{
		"the variable store": func(g *recovertest.Guest) string { return g.Dir + "/nvram.fd" },
		"the disk":           func(g *recovertest.Guest) string { return g.Disk },
	} {
		t.Run(what, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
			nvram := g.Dir + "/nvram.fd"
			g.Content[nvram] = recovertest.Payload(5, 8<<10)
			recovertest.Must(t, os.WriteFile(nvram, g.Content[nvram], 0o600))
			h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.NVRAM = nvram })
			recovertest.Must(t, h.HV.Start(t.Context(), g.UUID, false))
			cloud := h.Online()
			h.Purge()
			anew := lose(g)
			o := recovertest.Options(g)
			o.Mode = recover.ModeReboot
			id, _ := h.CrashIn(recover.CommandRescue, o, func(_ *run.Engine, here func(string)) {
				cloud.Point = func(point string) {
					switch point {
					case "before HardReboot":
						data, err := os.ReadFile(anew)
						recovertest.Must(t, err)
						recovertest.Must(t, os.Remove(anew))
						recovertest.Must(t, os.WriteFile(anew, data, 0o600))
					case "after HardReboot":
						here(point)
					}
				}
			})
			if id == "" {
				t.Fatal("it was not killed")
			}
			cloud.Point = nil
			report, err := h.Resume(t.Context(), id)
			recovertest.Must(t, err)
			if r := g.Report(report); (r.Outcome == recover.OutcomeRescued) != (anew == nvram) {
				t.Errorf("%+v", r)
			}
		})
	}
}
