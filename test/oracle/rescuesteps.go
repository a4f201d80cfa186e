package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func doRescue(_ context.Context, w *world, g *guest, p pick) (string, error) {
	return rescue(w, append([]string{"--instance", g.uuid}, ways(&p)...))
}

func doRescueAll(_ context.Context, w *world, _ *guest, p pick) (string, error) {
	return rescue(w, append([]string{"--all"}, ways(&p)...))
}

// ways chooses how a run goes.
func ways(p *pick) []string {
	args := []string{"--mode", []string{"reboot", "live", "auto"}[p.of(3)]}
	if p.of(4) == 0 {
		args = append(args, "--replace-existing")
	}
	return args
}

// rescue runs os-rescue and keeps its word for the rules.
func rescue(w *world, args []string) (string, error) {
	args = append(args, "--offline", "--yes", "--output", "json")
	r := w.osRescue(args...)
	w.last = &run{result: r}
	text := "os-rescue " + strings.Join(args, " ")
	if err := json.Unmarshal([]byte(r.Stdout), &w.last.report); err != nil && r.Code == 0 {
		return text, fmt.Errorf("exit code 0, and no report: %w\n%s", err, r.Stderr)
	}
	return fmt.Sprintf("%s: exit code %d%s", text, r.Code, w.last.summary()), nil
}

// run is what a run of os-rescue said.
type run struct {
	result lab.Result
	report recover.RunReport
}

func (r *run) summary() string {
	var all strings.Builder
	for _, i := range r.report.Instances {
		fmt.Fprintf(&all, "; %s %s", i.Domain, i.Outcome)
		if i.Error != "" {
			fmt.Fprintf(&all, " (%s)", i.Error)
		}
	}
	if len(r.report.Instances) == 0 {
		if lines := strings.Split(strings.TrimSpace(r.result.Stderr), "\n"); lines[0] != "" {
			fmt.Fprintf(&all, "; %s", lines[len(lines)-1])
		}
	}
	return all.String()
}

func doResumeRun(_ context.Context, w *world, _ *guest, _ pick) (string, error) {
	r := w.osRescue("resume", "--offline", "--yes")
	return fmt.Sprintf("os-rescue resume --offline --yes: exit code %d", r.Code), nil
}

func doGuardStart(_ context.Context, w *world, _ *guest, _ pick) (string, error) {
	if w.guard != nil {
		return "", errImpossible
	}
	w.guard = w.lab.StartCommand(w.t, guardEnvironment(), "guard")
	return "os-rescue guard &", nil
}

func doGuardStop(_ context.Context, w *world, _ *guest, _ pick) (string, error) {
	return endGuard(w, syscall.SIGTERM)
}

func doGuardKill(_ context.Context, w *world, _ *guest, _ pick) (string, error) {
	return endGuard(w, syscall.SIGKILL)
}

func endGuard(w *world, signal syscall.Signal) (string, error) {
	if w.guard == nil {
		return "", errImpossible
	}
	w.guard.Signal(w.t, signal)
	r := w.guard.Wait(w.t)
	w.guard = nil
	return fmt.Sprintf("kill -%d the guard: exit code %d", signal, r.Code), nil
}

// settle waits until the guard has scanned the host as it is now. The scan that counts
// began after this, and takes some hundredths of a second.
func settle(w *world) {
	if w.guard == nil {
		return
	}
	now := time.Now().Add(200 * time.Millisecond)
	patience.Wait(w.t, "a scan of the guard", func() bool {
		if ended(w.guard) {
			return true // the rules will see what that means
		}
		var overview struct {
			Guard struct {
				Scanned time.Time `json:"scanned"`
			} `json:"guard"`
		}
		r := w.osRescue("status", "--output", "json")
		return r.Code == 0 && json.Unmarshal([]byte(r.Stdout), &overview) == nil && overview.Guard.Scanned.After(now)
	})
}

// ended is true when a process has ended.
func ended(p *lab.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}
