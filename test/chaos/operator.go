package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// operator does what a person does after a rescue that met a fault.
type operator struct{ *world }

func (w operator) work(ctx context.Context) error {
	unfinished, err := w.unfinished()
	if err != nil {
		return err
	}
	struck := slices.ContainsFunc(w.script.Strikes, func(s strike) bool { return s.Resume })
	for try := 0; len(unfinished) > 0 && try < 3; try++ {
		args := []string{"resume", "--offline", "--yes", "--output", "json"}
		if struck && try == 0 {
			err = w.struck(ctx, true, args...)
		} else {
			_, err = w.osRescue(args...)
		}
		if err != nil {
			return hung(err)
		}
		if unfinished, err = w.unfinished(); err != nil {
			return err
		}
	}
	for _, run := range unfinished { // only a person can decide
		if !w.damaged() {
			return &finding{"resume does not finish a run", run}
		}
		w.flipped = ""
		if _, err := w.osRescue("resume", "--abandon", run, "--yes", "--output", "json"); err != nil {
			return hung(err)
		}
	}
	for range 2 {
		if err := w.scan(); err != nil {
			return err
		}
		if w.allIntact() {
			return nil
		}
		if err := w.decide(ctx); err != nil {
			return err
		}
		r, err := w.osRescue("--all", "--offline", "--yes", "--mode", "reboot", "--output", "json")
		if err != nil {
			return hung(err)
		}
		for _, g := range w.guests {
			if w.damaged() && strings.Contains(r.Stdout, "virsh domjobabort") {
				_, _ = w.virsh(ctx, "domjobabort", g.name) // it may have none
			}
		}
	}
	return w.scan()
}

func hung(err error) error {
	if errors.Is(err, errHangs) {
		return &finding{"os-rescue does not end", err.Error()}
	}
	return err
}

// decide does what a scan asks a person for where the journal that would prove something is damaged:
// to end the run's block job, and to say that the disk is right which the guest runs on. If it
// were not, the judge would miss what the other one had.
func (w operator) decide(ctx context.Context) error {
	if !w.damaged() {
		return nil
	}
	for _, g := range w.guests {
		reasons := strings.Join(w.reasons[g.uuid], "; ")
		if strings.Contains(reasons, "a block job is under way") {
			for _, d := range g.disks {
				if strings.Contains(reasons, d.Target+" copy") {
					_, _ = w.virsh(ctx, "blockjob", g.name, d.Target, "--abort") // it may have ended
				}
			}
		}
		if strings.Contains(reasons, "of which no run has proven that it is a copy") {
			if w.guard != nil {
				if _, err := w.osRescue("guard", "release", g.uuid, "--yes"); err != nil {
					return hung(err)
				}
			}
			if _, err := w.osRescue("keeper", "release", g.uuid, "--accept-loss", "last-copy", "--yes"); err != nil {
				return hung(err)
			}
		}
	}
	return nil
}

// damaged is true when a fault has damaged a journal.
func (w operator) damaged() bool {
	for what := range w.injected {
		if strings.Contains(what, "-journal") {
			return true
		}
	}
	return false
}

// unfinished returns the runs that want to be resumed, once nobody works on any.
func (w operator) unfinished() ([]string, error) {
	var names []string
	var failed error
	err := patience.RetryFor(limit(), func() error {
		names = nil
		r, err := w.osRescue("status", "--output", "json")
		if err != nil {
			failed = hung(err)
			return nil
		}
		var overview struct {
			Runs []recover.RunStatus `json:"runs"`
		}
		if err := json.Unmarshal([]byte(r.Stdout), &overview); err != nil {
			failed = &finding{"status works", fmt.Sprintf("exit code %d: %v %s", r.Code, err, r.Stderr)}
			return nil
		}
		for _, run := range overview.Runs {
			if run.Run == w.flipped && run.Error == "" {
				failed = &finding{"a journal with a flipped bit is named", "status takes that of run " + run.Run + " for whole"}
				return nil
			}
			switch run.State {
			case recover.RunFinished:
			case recover.RunInterrupted:
				names = append(names, run.Run)
			default:
				time.Sleep(50 * time.Millisecond)
				return fmt.Errorf("run %s is %s", run.Run, run.State)
			}
		}
		return nil
	})
	if failed == nil && err != nil {
		failed = &finding{"a run that was killed ends", err.Error()}
	}
	return names, failed
}

// scan asks for os-rescue's verdicts.
func (w operator) scan() error {
	r, err := w.osRescue("scan", "--output", "json")
	if err != nil {
		return hung(err)
	}
	var report recover.Report
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || r.Code > 1 {
		return &finding{"a scan works", fmt.Sprintf("exit code %d: %v %s", r.Code, err, r.Stderr)}
	}
	w.verdicts, w.reasons = map[string]recover.Verdict{}, map[string][]string{}
	for _, i := range report.Instances {
		w.verdicts[i.UUID], w.reasons[i.UUID] = i.Verdict, i.Reasons
		if i.Verdict != recover.VerdictIntact {
			w.note("scan: %s is %s: %s", i.Domain, i.Verdict, strings.Join(i.Reasons, "; "))
		}
	}
	return nil
}

func (w operator) allIntact() bool {
	return !slices.ContainsFunc(w.guests, func(g *guest) bool { return w.verdicts[g.uuid] != recover.VerdictIntact })
}
