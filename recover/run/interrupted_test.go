package run_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// errByHand is the cause of a run's end, as the command line gives one.
var errByHand = stoppedByHand{}

type stoppedByHand struct{}

func (stoppedByHand) Error() string { return "stopped by SIGINT" }

func (stoppedByHand) Is(target error) bool { return target == context.Canceled }

// interrupted runs a command that is stopped at a point of its journal; at is called there
// first, and may be nil.
func interrupted(t *testing.T, h *runtest.Host, command recover.Command, o recover.Options, point string, at func()) recover.RunReport {
	t.Helper()
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	e := h.Engine()
	e.Failpoint = func(p string) {
		if p == point && ctx.Err() == nil {
			if at != nil {
				at()
			}
			stop(errByHand)
		}
	}
	s, err := e.Prepare(ctx, command, o)
	recovertest.Must(t, err)
	defer s.Close()
	report, err := s.Execute(ctx)
	recovertest.Must(t, err)
	if ctx.Err() == nil {
		t.Fatalf("%s was not passed", point)
	}
	return report
}

func hasGoWords(text string) bool {
	return strings.Contains(text, "context") || strings.Contains(text, "signal:") || strings.Contains(text, "canceled")
}

func TestAnInterruptedInstanceIsSaidToBeAsItWasFoundAndHowToGoOn(t *testing.T) {
	for name, c := range map[string]struct {
		command recover.Command
		mode    recover.Mode
		point   string
	}{
		"a rescue by reboot, ahead":      {recover.CommandRescue, recover.ModeReboot, "ahead.begin"},
		"a rescue by reboot, suspended":  {recover.CommandRescue, recover.ModeReboot, "suspend.done"},
		"a live rescue, mirroring":       {recover.CommandRescue, recover.ModeLive, "mirror.done"},
		"a live rescue, while it copies": {recover.CommandRescue, recover.ModeLive, "ready.begin"},
		"a backup":                       {recover.CommandBackup, "", "suspend.done"},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			a, b := h.Add(1, recovertest.GuestOptions{}), h.Add(2, recovertest.GuestOptions{})
			pid := h.HV.Get(a.UUID).PID
			h.Purge()
			o := recovertest.Options(a, b)
			o.Mode, o.Parallel = c.mode, 1
			if c.command == recover.CommandBackup {
				o.BackupDir = t.TempDir()
			}
			report := interrupted(t, h, c.command, o, c.point, nil)
			first, second := a.Report(report), b.Report(report)
			if !report.Interrupted || report.Unrescued() != 2 {
				t.Errorf("interrupted %v, %d not rescued", report.Interrupted, report.Unrescued())
			}
			if first.Outcome != recover.OutcomeInterrupted || !hasAll(first.Error, "stopped by SIGINT at", "Nothing was destroyed",
				"its guest is as it was found (running)", "the keeper holds its lost files", "Run the command again") || hasGoWords(first.Error) {
				t.Errorf("%s: %s", first.Outcome, first.Error)
			}
			if second.Outcome != recover.OutcomeInterrupted || !hasAll(second.Error, "stopped by SIGINT before it began",
				"Nothing of it was touched", "the keeper holds its lost files", "Run the command again") || hasGoWords(second.Error) {
				t.Errorf("%s: %s", second.Outcome, second.Error)
			}
			recovertest.Must(t, a.AsFound(recover.StateRunning, pid))
			if status, err := h.Runs().Find(report.Run); err != nil || status.State != recover.RunFinished {
				t.Errorf("the run is %s (%v)", status.State, err)
			}
		})
	}
}

// What is said of the guest was seen, and not only meant.
func TestAnInterruptedInstanceThatIsNotAsFoundIsNotSaidToBe(t *testing.T) {
	for name, c := range map[string]struct {
		breakIt func(h *runtest.Host, g *recovertest.Guest)
		want    string
	}{
		"somebody has suspended it": {func(h *runtest.Host, g *recovertest.Guest) {
			h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.State = recover.StatePaused })
		}, "was found running, and is paused now"},
		"it can't be looked at": {func(h *runtest.Host, _ *recovertest.Guest) {
			h.HV.Errs["domain"] = errors.New("no answer from libvirt")
		}, "how it is now can't be seen (no answer from libvirt)"},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{})
			h.Purge()
			o := recovertest.Options(g)
			o.Mode = recover.ModeReboot
			report := interrupted(t, h, recover.CommandRescue, o, "ahead.begin", func() { c.breakIt(h, g) })
			r := g.Report(report)
			if r.Outcome != recover.OutcomeInterrupted || !strings.Contains(r.Error, c.want) || strings.Contains(r.Error, "as it was found") {
				t.Errorf("%s: %s", r.Outcome, r.Error)
			}
		})
	}
}

// What an interrupted resume leaves is not as the first run found it: the next resume goes on.
func TestAnInterruptedResumeNamesTheNextOne(t *testing.T) {
	h, g, name := crashed(t, recovertest.GuestOptions{}, "copy.done")
	ctx, stop := context.WithCancelCause(t.Context())
	s, err := h.Engine().PrepareResume(ctx, name, false)
	recovertest.Must(t, err)
	stop(errByHand)
	report, err := s.Execute(ctx)
	s.Close()
	recovertest.Must(t, err)
	r := g.Report(report)
	if r.Outcome != recover.OutcomeInterrupted || !report.Interrupted || hasGoWords(r.Error) || strings.Contains(r.Error, "as it was found") ||
		!hasAll(r.Error, "stopped by SIGINT", "No data is lost", "Go on with: os-rescue resume "+name) {
		t.Errorf("%s: %s", r.Outcome, r.Error)
	}
	if status, err := h.Runs().Find(name); err != nil || status.State != recover.RunInterrupted {
		t.Errorf("the run is %s (%v)", status.State, err)
	}
}
