package e2e

import (
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// withFailpoints builds os-rescue so that a run can be stopped at any point of
// its journal.
var withFailpoints = lab.Options{BuildFlags: []string{"-tags=failpoint"}}

// journalPoints returns the points of a run's journal in the order in which it
// first came to them.
func journalPoints(t *testing.T, run string) []string {
	t.Helper()
	var points []string
	for _, r := range records(t, run) {
		if !slices.Contains(points, r.Point()) {
			points = append(points, r.Point())
		}
	}
	return points
}

// drawn returns the points that a sweep stops at, by their place among all points: each one where
// LAB_SHARE is 1, as make sweeps has it, else one of LAB_SHARE, from the first on that LAB_SEED and
// the sweep's own number say, and those that no sweep leaves out.
func drawn(t *testing.T, sweep int, points []string, always ...string) iter.Seq2[int, string] {
	t.Helper()
	share, seed := bare.Setting(t, "LAB_SHARE", 3), bare.Setting(t, "LAB_SEED", 1)
	for _, point := range always {
		if !slices.Contains(points, point) {
			t.Fatalf("the sweep never leaves out %s, but a run has only the points %v", point, points)
		}
	}
	t.Logf("LAB_SEED=%d LAB_SHARE=%d", seed, share)
	return func(yield func(int, string) bool) {
		for n, point := range points {
			if (n+seed+sweep)%max(share, 1) != 0 && !slices.Contains(always, point) {
				continue
			}
			if !yield(n, point) {
				return
			}
		}
	}
}

// newVictim boots a guest, and learns from a first, undisturbed rescue which
// points there are.
func newVictim(t *testing.T) (*victim, []string) {
	t.Helper()
	l := lab.New(t, withFailpoints)
	v := &victim{Instance: l.Boot(t, lab.Spec{LogAppend: true, ConfigDrive: true}), l: l, boots: 1}
	l.DeleteTree(t)
	var report recover.RunReport
	decode(t, run(t, l, 0, "--all", "--offline", "--yes", "--output", "json").Stdout, &report)
	v.isBack(t, 1)
	points := journalPoints(t, report.Run)
	if len(points) < 20 {
		t.Fatalf("a rescue has only the points %v", points)
	}
	return v, points
}

func TestResumeFinishesARunThatWasKilledAtAnyPoint(t *testing.T) {
	v, points := newVictim(t)
	committed := slices.Index(points, "destroy.begin")
	for n, point := range drawn(t, 0, points, "suspend.done", "destroy.begin", "destroy.done") {
		t.Run(point, func(t *testing.T) {
			v.l.DeleteTree(t)
			runEnv(t, v.l, []string{"OS_RESCUE_FAILPOINT=" + point + "=kill"}, 128+9, "--all", "--offline", "--yes")
			killed := time.Now()
			if n < committed {
				// Nobody has to come for that.
				patience.Wait(t, "the guest to go on", func() bool { return v.State(t) == "running" })
				t.Logf("it runs %.0f ms after the kill", time.Since(killed).Seconds()*1000)
				v.WaitBeat(t, v.LastBeat()+1)
			}
			run(t, v.l, 0, "resume", "--yes")
			v.isBack(t, 1)
			v.intact(t)
		})
	}
}

func TestNoByteIsLostWhenTheGuestEndsRightAfterARunWasKilled(t *testing.T) {
	v, points := newVictim(t)
	// Before the pins are set nobody but QEMU holds the files.
	points = points[slices.Index(points, "pin.done"):]
	started := slices.Index(points, "start.done")
	for n, point := range drawn(t, 1, points, "suspend.done", "destroy.done") {
		t.Run(point, func(t *testing.T) {
			v.l.DeleteTree(t)
			env := []string{"OS_RESCUE_WITNESS=none", "OS_RESCUE_FAILPOINT=" + point + "=kill"}
			runEnv(t, v.l, env, 128+9, "--all", "--offline", "--yes")
			if point == "suspend.done" {
				says(t, run(t, v.l, 2, "check").Stdout, "left guests suspended or frozen: "+v.Name)
			}
			if n >= started {
				v.isBack(t, 1) // the run had started it already
			}
			switch v.State(t) {
			case "running":
				v.PowerOff(t)
			case "paused":
				v.Destroy(t) // somebody pulls it
			}
			v.WaitGone(t)
			run(t, v.l, 0, "resume", "--yes")
			if v.State(t) == "shut off" {
				v.Start(t)
			}
			v.isBack(t, 1)
			v.intact(t)
		})
	}
}

func TestAnInterruptedRunLeavesTheGuestAsItWasFound(t *testing.T) {
	v, points := newVictim(t)
	committed := slices.Index(points, "destroy.begin")
	for n, point := range drawn(t, 2, points, "suspend.done", "destroy.begin") {
		signal := "int"
		if strings.HasSuffix(point, ".done") {
			signal = "hup"
		}
		t.Run(point+"="+signal, func(t *testing.T) {
			v.l.DeleteTree(t)
			beat := v.LastBeat()
			r := v.l.Run(t, []string{"OS_RESCUE_FAILPOINT=" + point + "=" + signal}, "--all", "--offline", "--yes")
			if n >= committed {
				if r.Code != 0 {
					t.Fatalf("exit code %d after the domain was destroyed: it should have been brought back\n%s", r.Code, r.Stderr)
				}
				v.isBack(t, 1)
				v.intact(t)
				return
			}
			if r.Code != 130 {
				t.Fatalf("exit code %d, want 130\n%s\n%s", r.Code, r.Stdout, r.Stderr)
			}
			v.WaitBeat(t, beat+2)
			if len(v.Boots()) != v.boots {
				t.Fatal("the guest was rebooted")
			}
			v.nothingStaged(t)
		})
	}
	v.l.DeleteTree(t)
	run(t, v.l, 0, "--all", "--offline", "--yes")
	v.isBack(t, 1)
	v.intact(t)
}
