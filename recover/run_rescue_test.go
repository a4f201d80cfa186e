package recover

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
)

func TestARunningInstanceIsBackInServiceWithEveryByte(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b", console: true, config: true, agent: true})
	pid := h.hv.get(g.uuid).PID
	h.purge()
	if v := h.scan(g).Verdict; v != VerdictRecoverable {
		t.Fatalf("before: %s", v)
	}
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued || r.Error != "" {
		t.Fatalf("%+v", r)
	}
	must(t, g.serving(StateRunning))
	if h.hv.get(g.uuid).PID == pid {
		t.Error("its QEMU was not ended")
	}
	if n := g.pinned(); n != 0 {
		t.Errorf("the keeper still holds %d files", n)
	}
	if left := h.staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if v := h.scan(g).Verdict; v != VerdictIntact {
		t.Errorf("after: %s", v)
	}
	run, err := h.runs().find(report.Run)
	must(t, err)
	if run.State != RunFinished {
		t.Errorf("the run is %s", run.State)
	}
}

func TestAnInstanceThatLostOnlyWhatItDoesNotWriteNeverStops(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b", console: true, config: true, agent: true})
	pid := h.hv.get(g.uuid).PID
	for _, path := range []string{g.base, g.console, g.dir + "/disk.config", g.dir + "/disk.info"} {
		must(t, os.Remove(path))
	}
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	must(t, g.back())
	must(t, g.asFound(StateRunning, pid))
	for _, method := range []string{"suspend", "freeze", "destroy", "start"} {
		if n := h.hv.called(method, g.uuid); method == "start" && n != 1 || method != "start" && n != 0 {
			t.Errorf("%s was called %d times", method, n)
		}
	}
	// The second run finds nothing to do, though QEMU still holds the old inodes.
	if i := h.scan(g); i.Verdict != VerdictIntact {
		t.Errorf("after: %s %v", i.Verdict, i.Reasons)
	}
	if n := g.pinned(); n != 0 {
		t.Errorf("the keeper still holds %d files", n)
	}
}

func TestASharedBackingFileIsCopiedOnce(t *testing.T) {
	h := newHost(t)
	a, b, c := h.add(1, guestOptions{base: "shared"}), h.add(2, guestOptions{base: "shared"}), h.add(3, guestOptions{base: "other"})
	h.purge()
	o := options(a, b, c)
	o.Parallel = 2
	report, err := h.run(t.Context(), CommandRescue, o)
	must(t, err)
	for _, g := range []*testGuest{a, b, c} {
		if r := g.report(report); r.Outcome != OutcomeRescued {
			t.Errorf("%+v", r)
		}
		must(t, g.serving(StateRunning))
	}
	n := 0
	for _, r := range h.records(report.Run) {
		if r.Point() == "copy.begin" && r.Path == a.base {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the shared base was copied %d times", n)
	}
}

func TestAnInstanceEndsInTheStateItWasFoundIn(t *testing.T) {
	for _, state := range []DomainState{StateRunning, StatePaused} {
		t.Run(string(state), func(t *testing.T) {
			h := newHost(t)
			g := h.add(1, guestOptions{state: state})
			h.purge()
			report, err := h.run(t.Context(), CommandRescue, options(g))
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			must(t, g.serving(state))
			if state == StatePaused && (h.hv.called("suspend", g.uuid) > 0 || h.hv.called("resume", g.uuid) > 0) {
				t.Error("a guest that was paused by its owner was suspended or resumed")
			}
		})
	}
}

func TestNoRebootLeavesTheDomainOffWithItsFilesBack(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b"})
	h.purge()
	o := options(g)
	o.NoReboot = true
	report, err := h.run(t.Context(), CommandRescue, o)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued || len(r.Notes) == 0 {
		t.Fatalf("%+v", r)
	}
	must(t, g.serving(StateShutOff))
}

func TestACopyThatEndsBeforeWhatQEMUWroteIsRefused(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	pid := h.hv.get(g.uuid).PID
	h.purge()
	h.hv.change(g.uuid, func(d *fakeDomain) { d.counters["vda"] = BlockCounters{HighestOffset: 1 << 30} })
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, ErrUnproven.Error()) {
		t.Fatalf("%+v", r)
	}
	must(t, g.asFound(StateRunning, pid))
}

func TestWhatStandsAtAPath(t *testing.T) {
	write := func(t *testing.T, g *testGuest, data []byte) {
		must(t, os.MkdirAll(g.dir, 0o755))
		must(t, os.WriteFile(g.disk, data, 0o600))
	}
	t.Run("is kept when it has the same content", func(t *testing.T) {
		h := newHost(t)
		g := h.add(1, guestOptions{})
		h.purge()
		write(t, g, g.content[g.disk])
		before, _ := os.Stat(g.disk)
		report, err := h.run(t.Context(), CommandRescue, options(g))
		must(t, err)
		if r := g.report(report); r.Outcome != OutcomeRescued {
			t.Fatalf("%+v", r)
		}
		must(t, g.serving(StateRunning))
		if after, _ := os.Stat(g.disk); !os.SameFile(before, after) {
			t.Error("it was replaced")
		}
	})
	for name, other := range map[string][]byte{"has other content": payload(99, 96<<10), "has another size": []byte("another")} {
		t.Run("stops the instance when it "+name, func(t *testing.T) {
			h := newHost(t)
			g := h.add(1, guestOptions{agent: true})
			pid := h.hv.get(g.uuid).PID
			h.purge()
			write(t, g, other)
			report, err := h.run(t.Context(), CommandRescue, options(g))
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, ErrConflict.Error()) {
				t.Fatalf("%+v", r)
			}
			must(t, g.asFound(StateRunning, pid))
			if got, _ := os.ReadFile(g.disk); string(got) != string(other) {
				t.Error("it was changed")
			}
		})
	}
	t.Run("is moved aside with --replace-existing", func(t *testing.T) {
		h := newHost(t)
		g := h.add(1, guestOptions{})
		h.purge()
		write(t, g, []byte("another"))
		o := options(g)
		o.ReplaceExisting = true
		report, err := h.run(t.Context(), CommandRescue, o)
		must(t, err)
		if r := g.report(report); r.Outcome != OutcomeRescued {
			t.Fatalf("%+v", r)
		}
		must(t, g.serving(StateRunning))
		if got, err := os.ReadFile(g.disk + ".replaced-" + report.Run); err != nil || string(got) != "another" {
			t.Errorf("moved aside: %q, %v", got, err)
		}
	})
	t.Run("is not moved aside while somebody has it open, and the guest is left alone", func(t *testing.T) {
		h := newHost(t)
		g := h.add(1, guestOptions{})
		pid := h.hv.get(g.uuid).PID
		h.purge()
		write(t, g, []byte("another"))
		user, err := hold("somebody", nil, []File{{Path: g.disk}}, nil)
		must(t, err)
		defer user.end()
		o := options(g)
		o.ReplaceExisting = true
		report, err := h.run(t.Context(), CommandRescue, o)
		must(t, err)
		if r := g.report(report); r.Outcome == OutcomeRescued {
			t.Fatalf("%+v", r)
		}
		if err := g.asFound(StateRunning, pid); err != nil {
			t.Errorf("the guest was destroyed for a conflict that could be seen before: %v", err)
		}
	})
	t.Run("since the copy stops the instance before its guest is destroyed", func(t *testing.T) {
		h := newHost(t)
		g := h.add(1, guestOptions{})
		pid := h.hv.get(g.uuid).PID
		h.purge()
		h.hv.before = func(method, _ string) {
			if method == "counters" && len(h.staged()) > 1 {
				write(t, g, []byte("another"))
			}
		}
		report, err := h.run(t.Context(), CommandRescue, options(g))
		must(t, err)
		if r := g.report(report); r.Outcome == OutcomeRescued {
			t.Fatalf("%+v", r)
		}
		if err := g.asFound(StateRunning, pid); err != nil {
			t.Errorf("the guest was destroyed for a conflict that could be seen before: %v", err)
		}
		if got, _ := os.ReadFile(g.disk); string(got) != "another" {
			t.Error("it was changed")
		}
	})
}

// The same path may have been two files, one after the other: what one instance
// holds is not what the other needs.
func TestTwoDeletedBasesOfOnePathAreNotTakenForOne(t *testing.T) {
	h := newHost(t)
	a := h.add(1, guestOptions{base: "shared"})
	must(t, os.Remove(a.base))
	must(t, os.WriteFile(a.base, payload(5, 64<<10), 0o600))
	b := h.add(2, guestOptions{base: "shared"})
	b.content[b.base] = payload(5, 64<<10)
	pid := h.hv.get(b.uuid).PID
	h.purge()
	report, err := h.run(t.Context(), CommandRescue, options(a, b))
	must(t, err)
	if r := a.report(report); r.Outcome != OutcomeRescued {
		t.Errorf("%+v", r)
	}
	if r := b.report(report); r.Outcome == OutcomeRescued || !strings.Contains(r.Error, ErrConflict.Error()) {
		t.Errorf("%+v", r)
	}
	if err := a.serving(StateRunning); err != nil {
		t.Error(err)
	}
	must(t, b.asFound(StateRunning, pid))
}

func TestFilesDeletedInAnotherMountNamespaceAreLeftAlone(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{state: StateShutOff})
	other := filepath.Join(filepath.Dir(h.settings.StateDir), "volume")
	must(t, os.MkdirAll(filepath.Join(other, g.uuid), 0o755))
	must(t, os.WriteFile(filepath.Join(other, g.uuid, "disk"), g.content[g.disk], 0o600))
	// A QEMU that sees another directory of the same device at this path.
	script := `mount --make-rprivate / && mount --bind "$0" "$1" && exec 3<>"$2" && rm "$2" && echo ready && read x`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, other, h.settings.InstancesPath, g.disk, "-uuid", g.uuid)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { in.Close(); cmd.Wait() }()
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatal("unshare (needed for this test) does not work")
	}
	h.purge()
	h.hv.change(g.uuid, func(d *fakeDomain) { d.State, d.PID = StateRunning, cmd.Process.Pid })
	defer h.hv.change(g.uuid, func(d *fakeDomain) { d.PID = 0 })
	if i := h.scan(g); i.Verdict != VerdictDisplaced && i.Verdict != VerdictLost {
		t.Errorf("%s %+v", i.Verdict, i.Files)
	}
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, "namespace") {
		t.Errorf("%+v", r)
	}
	if h.hv.called("suspend", g.uuid)+h.hv.called("destroy", g.uuid) > 0 {
		t.Error("it was acted on")
	}
	if g.pinned() == 0 {
		t.Error("what is deleted is not held")
	}
}

// Of every journal point: a wish to stop leaves the guest as it was found, or
// back in service if its destruction had begun.
func TestCtrlCAtEveryJournalPointLeavesAGuestThatRuns(t *testing.T) {
	t.Parallel()
	first := newHost(t)
	for k := 1; ; k++ {
		h := first.elsewhere(t)
		g := h.add(k, guestOptions{base: "b", console: true, agent: true})
		pid := h.hv.get(g.uuid).PID
		h.purge()
		ctx, cancel := context.WithCancel(t.Context())
		e := h.engine()
		n, at := 0, ""
		e.Failpoint = func(point string) {
			if n++; n == k {
				at = point
				cancel()
			}
		}
		s, err := e.Prepare(ctx, CommandRescue, options(g))
		if err == nil {
			_, err = s.Execute(ctx)
			s.Close()
		}
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%d %s: %v", k, at, err)
		}
		if h.hv.called("destroy", g.uuid) == 0 {
			if err := g.asFound(StateRunning, pid); err != nil {
				t.Errorf("%d %s: %v", k, at, err)
			}
		} else if err := g.serving(StateRunning); err != nil {
			t.Errorf("%d %s: %v", k, at, err)
		}
		if left := h.staged(); len(left) > 0 {
			t.Errorf("%d %s: left behind: %v", k, at, left)
		}
		if d := h.hv.get(g.uuid); d.frozen {
			t.Errorf("%d %s: frozen", k, at)
		}
		// What Ctrl-C left can be rescued at once (looked at now and then only: it takes time).
		if h.hv.called("destroy", g.uuid) == 0 && k%4 == 0 {
			report, err := h.run(t.Context(), CommandRescue, options(g))
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeRescued {
				t.Errorf("%d %s: and then: %+v", k, at, r)
			}
			if err := g.serving(StateRunning); err != nil {
				t.Errorf("%d %s: and then: %v", k, at, err)
			}
		}
		h.hv.endAll()
		if at == "" {
			if k < 20 {
				t.Fatalf("only %d journal points", k)
			}
			return
		}
	}
}

func TestTheJournalHasARecordBeforeAndAfterEveryStep(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b", agent: true})
	h.purge()
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	got := points(h.records(report.Run))
	var open []string
	for _, p := range got {
		step, phase, _ := strings.Cut(p, ".")
		if phase == "begin" {
			open = append(open, step)
		} else if n := slices.Index(open, step); n >= 0 {
			open = slices.Delete(open, n, n+1)
		} else if step != stepPlan {
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
