package run_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// isAbandoned is isFinished for a run that was ended by hand, and fails the test unless
// another run may take the guest.
func isAbandoned(t *testing.T, h *runtest.Host, g *recovertest.Guest, run string) {
	t.Helper()
	isFinished(t, h, run)
	status, err := h.Runs().Find(run)
	recovertest.Must(t, err)
	report, err := h.Runs().Report(run)
	recovertest.Must(t, err)
	if !status.Abandoned || !report.Abandoned || report.Interrupted {
		t.Errorf("abandoned %v, in its report %v; interrupted %v", status.Abandoned, report.Abandoned, report.Interrupted)
	}
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued && !strings.Contains(r.Error, "ended by hand") {
		t.Errorf("%s: %s", r.Outcome, r.Error)
	}
	if todo := h.Planned(g, recover.CommandRescue, recovertest.Options(g)); strings.Contains(todo.Refusal, run) {
		t.Errorf("another run may not take it: %s", todo.Refusal)
	}
}

// placesOf counts in how many files below the instances directory the disk's content is.
func placesOf(h *runtest.Host, g *recovertest.Guest) int {
	n := 0
	filepath.WalkDir(h.Settings.InstancesPath, func(path string, _ os.DirEntry, _ error) error {
		if data, err := os.ReadFile(path); err == nil && bytes.Equal(data, g.Content[g.Disk]) {
			n++
		}
		return nil
	})
	return n
}

// Of every journal point of a rescue: its guest is as it was found, or its data is kept,
// whatever was chosen; another rescue brings it back where it can.
func TestAKilledRunCanBeEndedByHandAtEveryJournalPoint(t *testing.T) {
	t.Parallel()
	for name, choice := range map[string]recover.AbandonChoice{"kept": {}, "let go": {Release: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := runtest.NewHost(t)
			add := recovertest.GuestOptions{Console: true, Agent: true}
			for k := crashPoint(t, first, recovertest.GuestOptions{Base: "b"}, "pin.begin"); ; k++ {
				h := first.Elsewhere(t)
				add.Base = fmt.Sprint("b", k)
				g := h.Add(k, add)
				pid := h.HV.Get(g.UUID).PID
				h.Purge()
				run, point := h.CrashAt(recover.CommandRescue, recovertest.Options(g), k)
				if run == "" || point == "run.done" {
					return
				}
				where := fmt.Sprintf("%d %s", k, point)
				destroyed := h.HV.Get(g.UUID).PID != pid
				held := g.Pinned()
				list, err := h.Abandon(t.Context(), run, choice)
				if err != nil {
					t.Fatalf("%s: %v", where, err)
				}
				isAbandoned(t, h, g, run)
				switch left := len(h.Staged()); {
				case !destroyed:
					if err := g.AsFound(recover.StateRunning, pid); err != nil {
						t.Errorf("%s: %v", where, err)
					}
					if choice.Release && left+g.Pinned() > 0 {
						t.Errorf("%s: QEMU has every byte, and yet %d files are staged and %d pinned", where, left, g.Pinned())
					}
					if !choice.Release && g.Pinned() != held {
						t.Errorf("%s: %d files of %d are still held", where, g.Pinned(), held)
					}
				case g.Pinned() == 0 && placesOf(h, g) == 0:
					t.Errorf("%s: nobody has its disk any more: %+v", where, list.Instances)
				}
				if t.Failed() {
					return
				}
				// What was kept is enough to bring it back, or it is back.
				report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
				recovertest.Must(t, err)
				if r := g.Report(report); r.Outcome != recover.OutcomeRescued && r.Outcome != recover.OutcomeIntact {
					t.Errorf("%s: then %s: %s", where, r.Outcome, r.Error)
				}
				if err := g.Back(); err != nil {
					t.Errorf("%s: then %v", where, err)
				}
				h.HV.EndAll()
			}
		})
	}
}

// The last holder of a lost disk goes only by a word of its own.
func TestTheLastCopyOfADiskNeedsAWordOfItsOwn(t *testing.T) {
	h, g, run := crashed(t, recovertest.GuestOptions{}, "destroy.done")
	a, err := h.Engine().PrepareAbandon(t.Context(), run, false)
	recovertest.Must(t, err)
	var last []recover.HoldingKind
	for _, holding := range a.Plan().Instances[0].Holdings {
		if holding.Of == g.Disk && holding.Last {
			last = append(last, holding.Kind)
		}
	}
	a.Close()
	if slices.Sort(last); !slices.Equal(last, []recover.HoldingKind{recover.HoldingCopy, recover.HoldingPin}) {
		t.Errorf("the last ones of the disk: %v", last)
	}
	for _, c := range []struct {
		choice recover.AbandonChoice
		there  bool
	}{
		{recover.AbandonChoice{Release: true}, true},
		{recover.AbandonChoice{}, true}, // it is finished by now
		{recover.AbandonChoice{Release: true, Last: true}, false},
	} {
		_, err := h.Abandon(t.Context(), run, c.choice)
		recovertest.Must(t, err)
		isAbandoned(t, h, g, run)
		if there := g.Pinned() > 0 && placesOf(h, g) > 0; there != c.there {
			t.Errorf("%+v: pinned %d, staged %d", c.choice, g.Pinned(), placesOf(h, g))
		}
	}
	if left := h.Staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A kill in the middle of the ending leaves a run that can be ended again, or finished.
func TestAKillInTheMiddleOfTheEndingIsSafe(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"suspend.done", "copy.done"} {
		for _, resumed := range []bool{false, true} {
			for k := int64(1); ; k++ {
				h, g, run := crashed(t, recovertest.GuestOptions{Agent: true}, at)
				pid := h.HV.Get(g.UUID).PID
				e := h.Engine()
				crash := make(chan string)
				var points atomic.Int64 // the watch over the keeper has one too
				e.Failpoint = func(point string) {
					switch n := points.Add(1); {
					case n == k:
						crash <- point
						select {}
					case n > k:
						select {} // nothing of a dead run goes on
					}
				}
				ended := make(chan error)
				go func() {
					a, err := e.PrepareAbandon(t.Context(), run, false)
					if err == nil {
						_, err = a.Execute(t.Context(), recover.AbandonChoice{Release: true})
						a.Close()
					}
					ended <- err
				}()
				var point string
				select {
				case point = <-crash:
					h.DropLock()
				case err := <-ended:
					recovertest.Must(t, err)
				}
				if point == "" {
					break
				}
				where := fmt.Sprintf("%s, then %d %s", at, k, point)
				if resumed {
					report, err := h.Resume(t.Context(), run)
					if err != nil && !errors.Is(err, recover.ErrNoRun) {
						t.Errorf("%s: %v", where, err)
					}
					if err == nil && g.Report(report).Outcome == recover.OutcomeRescued {
						if err := g.Serving(recover.StateRunning); err != nil {
							t.Errorf("%s: %v", where, err)
						}
					}
				} else {
					if _, err := h.Abandon(t.Context(), run, recover.AbandonChoice{Release: true}); err != nil {
						t.Errorf("%s: %v", where, err)
					}
					if err := g.AsFound(recover.StateRunning, pid); err != nil {
						t.Errorf("%s: %v", where, err)
					}
				}
				isFinished(t, h, run)
				h.HV.EndAll()
			}
		}
	}
}

func TestEndingARunUndoesItsLocksInNovaIfNovaAnswers(t *testing.T) {
	for _, away := range []bool{false, true} {
		h, g, run := crashOnline(t, recovertest.GuestOptions{}, "suspend.done")
		if away {
			h.Cloud.Away("Server")
		}
		list, err := h.Abandon(t.Context(), run, recover.AbandonChoice{})
		recovertest.Must(t, err)
		h.Cloud.Back()
		isAbandoned(t, h, g, run)
		if locked := h.Cloud.Get(g.UUID).Locked; locked != away {
			t.Errorf("Nova away %v: locked %v", away, locked)
		}
		if said := strings.Join(list.Instances[0].Notes, ";"); away != strings.Contains(said, "openstack server unlock "+g.UUID) {
			t.Errorf("Nova away %v: %s", away, said)
		}
	}
}

func TestEndingALiveRunLeavesItsGuestOnTheDisksThatItHas(t *testing.T) {
	first := runtest.NewHost(t)
	options := func(g *recovertest.Guest) recover.Options {
		o := recovertest.Options(g)
		o.Mode = recover.ModeLive
		return o
	}
	for _, at := range []string{"seal.done", "mirror.done", "ready.done", "suspend.done", "place.done", "pivot.done"} {
		k := runtest.CrashPoint(t, first, recover.CommandRescue, options, recovertest.GuestOptions{}, at, "")
		h := first.Elsewhere(t)
		g := h.Add(1, recovertest.GuestOptions{})
		pid := h.HV.Get(g.UUID).PID
		h.Purge()
		run, _ := h.CrashAt(recover.CommandRescue, options(g), k)
		if _, err := h.Abandon(t.Context(), run, recover.AbandonChoice{}); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		if err := g.AsFound(recover.StateRunning, pid); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		isAbandoned(t, h, g, run)
		if st, err := os.Stat(g.Dir); err == nil && st.Mode().Perm() != 0o755 {
			t.Errorf("%s: its directory has mode %v", at, st.Mode())
		}
		h.HV.EndAll()
	}
}

func TestARunWithADamagedJournalCanBeEnded(t *testing.T) {
	h, g, run := crashed(t, recovertest.GuestOptions{}, "suspend.done")
	pid := h.HV.Get(g.UUID).PID
	path := filepath.Join(h.State().Run(run), journal.FileName)
	data, err := os.ReadFile(path)
	recovertest.Must(t, err)
	damaged := append(data, "not a record\n{}\n"...)
	recovertest.Must(t, os.WriteFile(path, damaged, 0o600))
	if _, err := h.Resume(t.Context(), run); err == nil {
		t.Fatal("a run with a damaged journal was resumed")
	}
	list, err := h.Abandon(t.Context(), run, recover.AbandonChoice{})
	recovertest.Must(t, err)
	if !strings.Contains(list.Damage, "damaged") {
		t.Errorf("damage: %q", list.Damage)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
	isAbandoned(t, h, g, run)
	if kept, err := os.ReadFile(filepath.Join(filepath.Dir(path), journal.DamagedName)); err != nil || !bytes.Equal(kept, damaged) {
		t.Errorf("the damaged journal was not kept: %v", err)
	}
	if _, err := os.Stat(g.Disk); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its disk: %v", err)
	}
}
