package e2e

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// Two guests with agents, on a file system that gets full.
func TestAFullFileSystemAndASilentAgentCostNothing(t *testing.T) {
	l := lab.New(t, withFailpoints)
	guests := bootAll(t, l, lab.Spec{}, lab.Spec{})
	v, w := guests[0], guests[1]
	for _, g := range guests {
		g.WaitAgent(t)
		g.WaitLine(t, g.Send(t, "fill 16"), "fill payload")
	}
	l.DeleteTree(t)

	t.Run("too little headroom is found before any pause", func(t *testing.T) {
		filler := fill(t, lab.NovaDir, 64<<20) // the copies fit, but 5 % must stay free
		ran := rescue(t, l, 1, "--all")
		remove(t, filler)
		for _, g := range guests {
			got := of(t, ran, g)
			if got.Outcome != recover.OutcomeSkipped || len(got.Steps) > 0 || got.PauseSeconds != 0 {
				t.Errorf("%s", asJSON(t, got))
			}
			says(t, got.Error, "not enough space", "must stay free")
			g.unharmed(t)
		}
	})
	t.Run("one that QEMU paused for an I/O error is left alone", func(t *testing.T) {
		filler := fill(t, lab.NovaDir, 0)
		v.Send(t, "fill 24")
		patience.Wait(t, "QEMU pauses the guest", func() bool {
			return strings.Contains(l.Virsh(t, "domstate", v.Name, "--reason"), "I/O error")
		})
		remove(t, filler)
		got := of(t, rescue(t, l, 1, "--instance", v.UUID), v)
		if got.Outcome != recover.OutcomeSkipped || v.State(t) != "paused" {
			t.Errorf("it is %s: %s", v.State(t), asJSON(t, got))
		}
		says(t, got.Error, "I/O error", "virsh resume")
		l.Virsh(t, "resume", v.Name)
		v.unharmed(t)
		v.Verify(t)
		patience.Wait(t, "the other guest runs", func() bool { // it may have run into the full file system too
			if w.State(t) == "paused" {
				l.Virsh(t, "resume", w.Name)
			}
			return w.State(t) == "running"
		})
	})
	t.Run("full in mid-copy: thawed, let go on, and cleaned up", func(t *testing.T) {
		var filler string
		r := at(t, l, "suspend.done", func() {
			grow(t, v.held(t, v.Disk), 32<<20) // since it was copied ahead
			filler = fill(t, lab.NovaDir, 4<<20)
		}, rescueArgs("--instance", v.UUID)...)
		remove(t, filler)
		if r.Code != 1 {
			t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
		}
		ran := report(t, r)
		got := of(t, ran, v)
		says(t, got.Error, "not enough space", v.Disk, "Nothing was destroyed")
		if got.Outcome != recover.OutcomeFailed || got.PauseSeconds <= 0 {
			t.Errorf("%s", asJSON(t, got))
		}
		for _, point := range []string{
			"freeze.begin", "freeze.done", "suspend.done", "copy.failed", "cleanup.done", "continue.done", "thaw.done",
		} {
			if count(t, ran.Run, point, "") == 0 {
				t.Errorf("the journal has no %s", point)
			}
		}
		v.unharmed(t) // each beat is an fsync, which a frozen file system does not do
		if status := frozen(t, v); status != "thawed" {
			t.Errorf("its file systems are %s", status)
		}
		v.nothingStaged(t)
		if !holdings(t, l).Running {
			t.Error("the keeper does not hold what is still lost")
		}
	})
	t.Run("too little for what a disk has grown by while it was copied: never suspended", func(t *testing.T) {
		var filler string
		r := at(t, l, "ahead.done", func() {
			grow(t, v.held(t, v.Disk), 32<<20)
			filler = fill(t, lab.NovaDir, 8<<20)
		}, rescueArgs("--instance", v.UUID)...)
		remove(t, filler)
		got := of(t, report(t, r), v)
		says(t, got.Error, "not enough space", "grown", "Nothing was destroyed")
		if got.Outcome != recover.OutcomeFailed || got.PauseSeconds > 0 {
			t.Errorf("%s", asJSON(t, got))
		}
		v.unharmed(t)
		v.nothingStaged(t)
	})
	t.Run("when not all fit at once they come one by one", func(t *testing.T) { oneByOne(t, l, guests) })
	t.Run("an agent that hangs is given up after its time", func(t *testing.T) { hangingAgent(t, l, v) })
}

// grow adds data to the end of an image, where its format does not mind.
func grow(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	_, err = io.CopyN(f, rand.Reader, size)
	must(t, err)
}

// frozen asks the guest's agent whether its file systems are frozen.
func frozen(t *testing.T, v *victim) string {
	t.Helper()
	answer := v.l.Virsh(t, "qemu-agent-command", v.Name, `{"execute":"guest-fsfreeze-status"}`)
	_, status, _ := strings.Cut(answer, `"return":"`)
	status, _, _ = strings.Cut(status, `"`)
	return status
}

func oneByOne(t *testing.T, l *lab.Lab, guests []*victim) {
	selectors := []string{"--all", "--parallel", "2", "--offline", "--output", "json"}
	env := []string{"OS_RESCUE_HEADROOM_PERCENT=0"}
	plan := func() (p recover.Plan) {
		decode(t, runEnv(t, l, env, 0, append(selectors, "--dry-run")...).Stdout, &p)
		return p
	}
	p := plan()
	if p.OneByOne || len(p.Space) != 1 {
		t.Fatalf("with room for all the plan is one by one: %v, with the space %+v", p.OneByOne, p.Space)
	}
	filler := fill(t, lab.NovaDir, p.Space[0].Need-8<<20)
	defer os.Remove(filler)
	if p = plan(); !p.OneByOne {
		t.Fatalf("the plan is not one by one: %+v", p.Space)
	}
	ran := report(t, runEnv(t, l, env, 0, append(selectors, "--yes")...))
	remove(t, filler)
	for _, g := range guests {
		g.isBack(t, 1)
		g.intact(t)
	}
	var order []string
	for _, r := range records(t, ran.Run) {
		if r.Step == "instance" || r.Step == "unpin" {
			order = append(order, r.Instance+" "+r.Point())
		}
	}
	first, second := order[0][:36], order[len(order)-1][:36]
	if slices.Index(order, first+" unpin.done") > slices.Index(order, second+" instance.begin") {
		t.Errorf("the second began before the first had let its old files go: %v", order)
	}
}

// seconds is a time for a test's own waiting, as an argument.
func seconds(d time.Duration) string { return fmt.Sprint(int(patience.Of(d).Seconds())) }

// hangingAgent stops the agent in the guest, where it does not answer any more.
func hangingAgent(t *testing.T, l *lab.Lab, v *victim) {
	v.WaitAgent(t)
	l.Virsh(t, "qemu-agent-command", v.Name,
		`{"execute":"guest-exec","arguments":{"path":"/bin/busybox","arg":["sh","-c","sleep 1; kill -STOP $PPID"]}}`)
	patience.Wait(t, "the agent is silent", func() bool {
		out, err := lookVirsh(t, "qemu-agent-command", "--timeout", seconds(3*time.Second), v.Name, `{"execute":"guest-ping"}`)
		return err != nil && strings.Contains(out, "agent")
	})
	l.DeleteTree(t)
	r := runEnv(t, l, []string{"OS_RESCUE_FREEZE_TIMEOUT=2s"}, 0, rescueArgs("--instance", v.UUID)...)
	got := of(t, report(t, r), v)
	for _, step := range got.Steps {
		// 2 s, and 5 s for the agent to be in step.
		if limit := patience.Of(10 * time.Second).Seconds(); step.Name == "freeze" && step.Seconds > limit {
			t.Errorf("the freeze took %.1f s, want at most %.1f", step.Seconds, limit)
		}
	}
	if !slices.ContainsFunc(got.Steps, func(s recover.StepReport) bool { return s.Name == "freeze" }) {
		t.Error(fmt.Sprint("no freeze was tried: ", got.Steps))
	}
	v.isBack(t, 1)
	v.intact(t)
}
