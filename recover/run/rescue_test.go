package run_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestARunningInstanceIsBackInServiceWithEveryByte(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true, Config: true, Agent: true})
	pid := h.HV.Get(g.UUID).PID
	h.Purge()
	if v := h.Scan(g).Verdict; v != recover.VerdictRecoverable {
		t.Fatalf("before: %s", v)
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued || r.Error != "" {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
	if h.HV.Get(g.UUID).PID == pid {
		t.Error("its QEMU was not ended")
	}
	if n := g.Pinned(); n != 0 {
		t.Errorf("the keeper still holds %d files", n)
	}
	if left := h.Staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if v := h.Scan(g).Verdict; v != recover.VerdictIntact {
		t.Errorf("after: %s", v)
	}
	run, err := h.Runs().Find(report.Run)
	recovertest.Must(t, err)
	if run.State != recover.RunFinished {
		t.Errorf("the run is %s", run.State)
	}
}

func TestAnInstanceThatLostOnlyWhatItDoesNotWriteNeverStops(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true, Config: true, Agent: true})
	pid := h.HV.Get(g.UUID).PID
	for _, path := range []string{g.Base, g.Console, g.Dir + "/disk.config", g.Dir + "/disk.info"} {
		recovertest.Must(t, os.Remove(path))
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Back())
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
	for _, method := range []string{"suspend", "freeze", "destroy", "start"} {
		if n := h.HV.Called(method, g.UUID); method == "start" && n != 1 || method != "start" && n != 0 {
			t.Errorf("%s was called %d times", method, n)
		}
	}
	// The second run finds nothing to do, though QEMU still holds the old inodes.
	if i := h.Scan(g); i.Verdict != recover.VerdictIntact {
		t.Errorf("after: %s %v", i.Verdict, i.Reasons)
	}
	if n := g.Pinned(); n != 0 {
		t.Errorf("the keeper still holds %d files", n)
	}
}

func TestASharedBackingFileIsCopiedOnce(t *testing.T) {
	h := runtest.NewHost(t)
	a := h.Add(1, recovertest.GuestOptions{Base: "shared"})
	b := h.Add(2, recovertest.GuestOptions{Base: "shared"})
	c := h.Add(3, recovertest.GuestOptions{Base: "other"})
	h.Purge()
	o := recovertest.Options(a, b, c)
	o.Parallel = 2
	report, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	for _, g := range []*recovertest.Guest{a, b, c} {
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Errorf("%+v", r)
		}
		recovertest.Must(t, g.Serving(recover.StateRunning))
	}
	n := 0
	for _, r := range h.Journal(report.Run) {
		if r.Point() == "copy.begin" && r.Path == a.Base {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the shared base was copied %d times", n)
	}
}

func TestAnInstanceEndsInTheStateItWasFoundIn(t *testing.T) {
	for _, state := range []recover.DomainState{recover.StateRunning, recover.StatePaused} {
		t.Run(string(state), func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{State: state})
			h.Purge()
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Serving(state))
			if state == recover.StatePaused && (h.HV.Called("suspend", g.UUID) > 0 || h.HV.Called("resume", g.UUID) > 0) {
				t.Error("a guest that was paused by its owner was suspended or resumed")
			}
		})
	}
}

func TestNoRebootLeavesTheDomainOffWithItsFilesBack(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	o := recovertest.Options(g)
	o.NoReboot = true
	report, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued || len(r.Notes) == 0 {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateShutOff))
}

func TestACopyThatEndsBeforeWhatQEMUWroteIsRefused(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	pid := h.HV.Get(g.UUID).PID
	h.Purge()
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Counters["vda"] = recover.BlockCounters{HighestOffset: 1 << 30} })
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, recover.ErrUnproven.Error()) {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
}

func TestWhatStandsAtAPath(t *testing.T) {
	write := func(t *testing.T, g *recovertest.Guest, data []byte) {
		recovertest.Must(t, os.MkdirAll(g.Dir, 0o755))
		recovertest.Must(t, os.WriteFile(g.Disk, data, 0o600))
	}
	t.Run("is kept when it has the same content", func(t *testing.T) {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{})
		h.Purge()
		write(t, g, g.Content[g.Disk])
		before, _ := os.Stat(g.Disk)
		report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Fatalf("%+v", r)
		}
		recovertest.Must(t, g.Serving(recover.StateRunning))
		if after, _ := os.Stat(g.Disk); !os.SameFile(before, after) {
			t.Error("it was replaced")
		}
	})
	for name, other := range map[string][]byte{"has other content": recovertest.Payload(99, 96<<10), "has another size": []byte("another")} {
		t.Run("stops the instance when it "+name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Agent: true})
			pid := h.HV.Get(g.UUID).PID
			h.Purge()
			write(t, g, other)
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, recover.ErrConflict.Error()) {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
			if got, _ := os.ReadFile(g.Disk); string(got) != string(other) {
				t.Error("it was changed")
			}
		})
	}
	t.Run("is moved aside with --replace-existing", func(t *testing.T) {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{})
		h.Purge()
		write(t, g, []byte("another"))
		o := recovertest.Options(g)
		o.ReplaceExisting = true
		report, err := h.Run(t.Context(), recover.CommandRescue, o)
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Fatalf("%+v", r)
		}
		recovertest.Must(t, g.Serving(recover.StateRunning))
		if got, err := os.ReadFile(g.Disk + ".replaced-" + report.Run); err != nil || string(got) != "another" {
			t.Errorf("moved aside: %q, %v", got, err)
		}
	})
	t.Run("is not moved aside while somebody has it open, and the guest is left alone", func(t *testing.T) {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{})
		pid := h.HV.Get(g.UUID).PID
		h.Purge()
		write(t, g, []byte("another"))
		user, err := recovertest.Hold("somebody", nil, []recover.File{{Path: g.Disk}}, nil)
		recovertest.Must(t, err)
		defer user.End()
		o := recovertest.Options(g)
		o.ReplaceExisting = true
		report, err := h.Run(t.Context(), recover.CommandRescue, o)
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome == recover.OutcomeRescued {
			t.Fatalf("%+v", r)
		}
		if err := g.AsFound(recover.StateRunning, pid); err != nil {
			t.Errorf("the guest was destroyed for a conflict that could be seen before: %v", err)
		}
	})
	t.Run("since the copy stops the instance before its guest is destroyed", func(t *testing.T) {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{})
		pid := h.HV.Get(g.UUID).PID
		h.Purge()
		h.HV.Before = func(method, _ string) {
			if method == "counters" && len(h.Staged()) > 1 {
				write(t, g, []byte("another"))
			}
		}
		report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome == recover.OutcomeRescued {
			t.Fatalf("%+v", r)
		}
		if err := g.AsFound(recover.StateRunning, pid); err != nil {
			t.Errorf("the guest was destroyed for a conflict that could be seen before: %v", err)
		}
		if got, _ := os.ReadFile(g.Disk); string(got) != "another" {
			t.Error("it was changed")
		}
	})
}

// The same path may have been two files, one after the other: what one instance
// holds is not what the other needs.
func TestTwoDeletedBasesOfOnePathAreNotTakenForOne(t *testing.T) {
	h := runtest.NewHost(t)
	a := h.Add(1, recovertest.GuestOptions{Base: "shared"})
	recovertest.Must(t, os.Remove(a.Base))
	recovertest.Must(t, os.WriteFile(a.Base, recovertest.Payload(5, 64<<10), 0o600))
	b := h.Add(2, recovertest.GuestOptions{Base: "shared"})
	b.Content[b.Base] = recovertest.Payload(5, 64<<10)
	pid := h.HV.Get(b.UUID).PID
	h.Purge()
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(a, b))
	recovertest.Must(t, err)
	if r := a.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	if r := b.Report(report); r.Outcome == recover.OutcomeRescued || !strings.Contains(r.Error, recover.ErrConflict.Error()) {
		t.Errorf("%+v", r)
	}
	if err := a.Serving(recover.StateRunning); err != nil {
		t.Error(err)
	}
	recovertest.Must(t, b.AsFound(recover.StateRunning, pid))
}

func TestFilesDeletedInAnotherMountNamespaceAreLeftAlone(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	other := filepath.Join(filepath.Dir(h.Settings.StateDir), "volume")
	recovertest.Must(t, os.MkdirAll(filepath.Join(other, g.UUID), 0o755))
	recovertest.Must(t, os.WriteFile(filepath.Join(other, g.UUID, "disk"), g.Content[g.Disk], 0o600))
	// A QEMU that sees another directory of the same device at this path.
	script := `mount --make-rprivate / && mount --bind "$0" "$1" && exec 3<>"$2" && rm "$2" && echo ready && read x`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, other, h.Settings.InstancesPath, g.Disk, "-uuid", g.UUID)
	in, err := cmd.StdinPipe()
	recovertest.Must(t, err)
	out, err := cmd.StdoutPipe()
	recovertest.Must(t, err)
	recovertest.Must(t, cmd.Start())
	defer func() { in.Close(); cmd.Wait() }()
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatal("unshare (needed for this test) does not work")
	}
	h.Purge()
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.State, d.PID = recover.StateRunning, cmd.Process.Pid })
	defer h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.PID = 0 })
	if i := h.Scan(g); i.Verdict != recover.VerdictConflict {
		t.Errorf("%s %+v", i.Verdict, i.Files)
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "another directory") {
		t.Errorf("%+v", r)
	}
	if h.HV.Called("suspend", g.UUID)+h.HV.Called("destroy", g.UUID) > 0 {
		t.Error("it was acted on")
	}
	if g.Pinned() == 0 {
		t.Error("what is deleted is not held")
	}
}

// Of every journal point: a wish to stop leaves the guest as it was found, or
// back in service if its destruction had begun.
func TestCtrlCAtEveryJournalPointLeavesAGuestThatRuns(t *testing.T) {
	t.Parallel()
	first := runtest.NewHost(t)
	for k := 1; ; k++ {
		h := first.Elsewhere(t)
		g := h.Add(k, recovertest.GuestOptions{Base: "b", Console: true, Agent: true})
		pid := h.HV.Get(g.UUID).PID
		h.Purge()
		n, at := 0, ""
		err := cancelled(t, h, g, func(point string) bool {
			if n++; n == k {
				at = point
			}
			return n == k
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%d %s: %v", k, at, err)
		}
		if h.HV.Called("destroy", g.UUID) == 0 {
			if err := g.AsFound(recover.StateRunning, pid); err != nil {
				t.Errorf("%d %s: %v", k, at, err)
			}
		} else if err := g.Serving(recover.StateRunning); err != nil {
			t.Errorf("%d %s: %v", k, at, err)
		}
		if left := h.Staged(); len(left) > 0 {
			t.Errorf("%d %s: left behind: %v", k, at, left)
		}
		if d := h.HV.Get(g.UUID); d.Frozen {
			t.Errorf("%d %s: frozen", k, at)
		}
		// What Ctrl-C left can be rescued at once (looked at now and then only: it takes time).
		if h.HV.Called("destroy", g.UUID) == 0 && k%4 == 0 {
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Errorf("%d %s: and then: %+v", k, at, r)
			}
			if err := g.Serving(recover.StateRunning); err != nil {
				t.Errorf("%d %s: and then: %v", k, at, err)
			}
		}
		h.HV.EndAll()
		if at == "" {
			if k < 20 {
				t.Fatalf("only %d journal points", k)
			}
			return
		}
	}
}

func TestTheJournalHasARecordBeforeAndAfterEveryStep(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Agent: true})
	h.Purge()
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	got := runtest.Points(h.Journal(report.Run))
	var open []string
	for _, p := range got {
		step, phase, _ := strings.Cut(p, ".")
		if phase == "begin" {
			open = append(open, step)
		} else if n := slices.Index(open, step); n >= 0 {
			open = slices.Delete(open, n, n+1)
		} else if step != journal.StepPlan {
			t.Errorf("%s without a begin", p)
		}
	}
	if len(open) > 0 {
		t.Errorf("begun and never ended: %v", open)
	}
	order := []string{"run.begin", "pin.done", "plan.done", "instance.begin", "copy.done", "compare.done", "publish.done",
		"ahead.done", "freeze.done", "suspend.done", "copy.done",
		"destroy.begin", "destroy.done", "publish.begin", "start.done", "confirm.done", "unpin.done", "instance.done", "run.done"}
	at := 0
	for _, p := range got {
		if at < len(order) && p == order[at] {
			at++
		}
	}
	if at != len(order) {
		t.Errorf("%s does not come in its turn in %v", order[at], got)
	}
}
