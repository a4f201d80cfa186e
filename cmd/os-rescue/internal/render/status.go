package render

import (
	"io"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/leftover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/printable"
)

// Overview is every run of a host, and what its keeper and its guard hold.
type Overview struct {
	Runs   []recover.RunStatus `json:"runs"` // the newest first
	Keeper pin.KeeperStatus    `json:"keeper"`
	Guard  guard.Status        `json:"guard"`
	// Unclaimed are directories with staged copies of runs that are not among Runs.
	Unclaimed []leftover.Staging `json:"unclaimed,omitempty"`
}

// WriteOverview writes a table of all runs, what keeper and guard hold, and what to do next.
func WriteOverview(w io.Writer, t Text, o Overview) error {
	p := page{Text: t}
	if len(o.Runs) == 0 {
		p.line("No runs.")
	} else {
		var rows [][]any
		for _, r := range o.Runs {
			rows = append(rows, []any{
				r.Run, orDash(string(r.Command)), when(r.Started), when(r.Finished), runState(p.Text, r), outcomes(r),
			})
		}
		p.columns("", []any{"run", "command", "started", "finished", "state", "instances"}, rows)
	}
	p.line("")
	overviewKeeper(&p, o.Keeper, o.Guard.Running)
	otherKeepers(&p, o.Keeper.Others)
	overviewGuard(&p, o.Guard)
	overviewUnclaimed(&p, o.Unclaimed)
	for _, r := range o.Runs {
		if r.State == recover.RunInterrupted {
			p.line("")
			p.line("Next, finish the interrupted runs: %s", p.paint(bold, p.Again+" resume"))
			break
		}
	}
	return p.sendTo(w)
}

// How much of a guard's lists is written.
const (
	mostIncidents = 200
	mostProblems  = 30
	problemLength = 1024 // characters
)

func overviewGuard(p *page, g guard.Status) {
	if !g.Running {
		p.line("No guard runs on this host: files are safe from a deletion only while their instances run.")
		return
	}
	if g.Fault != "" {
		p.line("The guard does not answer as it must, and nothing of it is known: %s", short(g.Fault, problemLength))
		p.line("Rescues go on without it, with what QEMU and the keeper hold. Next: systemctl status os-rescue-guard")
		return
	}
	p.line("The guard (pid %d) holds %s (%s), %d of them deleted (%s). Its last scan was at %s.", g.PID, counted(g.Held.Files, "file"),
		console.Size(g.Held.Bytes), g.Held.DeletedFiles, console.Size(g.Held.DeletedBytes), when(g.Scanned))
	for _, text := range g.Problems[:min(len(g.Problems), mostProblems)] {
		p.line("  Problem: %s", short(text, problemLength))
	}
	if more := len(g.Problems) - mostProblems; more > 0 {
		p.line("  and %s more", counted(more, "problem"))
	}
	for _, uuid := range g.SoftDeleted {
		p.line("  No incident: %s misses files, and is SOFT_DELETED in Nova: its owner has deleted it.", uuid)
	}
	if len(g.Incidents) == 0 {
		return
	}
	var rows [][]any
	for _, i := range g.Incidents[:min(len(g.Incidents), mostIncidents)] {
		state := "files deleted"
		if i.Replaced {
			state = "runs on other files"
		}
		if i.Locked {
			state += ", locked in Nova"
		}
		rows = append(rows, []any{
			i.Domain, i.Name, i.UUID, when(i.Since), i.Files(), console.Size(i.Bytes), state,
		})
	}
	p.columns("  ", []any{"incident", "name", "instance", "since", "files", "size", "state"}, rows, right(5), right(6))
	if more := len(g.Incidents) - mostIncidents; more > 0 {
		p.line("  and %s more: %s", counted(more, "incident"), p.Again+" scan")
	}
}

func overviewKeeper(p *page, k pin.KeeperStatus, isGuarded bool) {
	if !k.Running && len(k.Others) > 0 {
		p.line("No keeper of this state directory answers.")
		return
	}
	if !k.Running {
		p.line("The keeper is not running: nothing is held.")
		return
	}
	p.line("The keeper (pid %s) holds %s.", pidsOf(k), counted(len(k.Holds), "file"))
	if len(k.Holds) == 0 {
		return
	}
	holdsTable(p, k.Holds)
	if isGuarded { // which gives the keeper again what it holds itself
		p.line("When nobody needs them any more: %[1]s guard release UUID for those of an incident, %[1]s keeper release for the others", p.Again)
		return
	}
	p.line("When nobody needs them any more: %s keeper release", p.Again)
}

// WriteStatus writes one run with each instance's steps.
func WriteStatus(w io.Writer, t Text, r recover.RunStatus) error {
	p := page{Text: t}
	p.line("%s  %s on %s, started %s, %s",
		p.paint(bold, r.Run), orDash(string(r.Command)), orDash(r.Host), when(r.Started), runState(p.Text, r))
	for _, i := range r.Instances {
		p.line("")
		outcome := p.paint(outcomeColor(i.Outcome), outcomeText(r.Command, i.Outcome))
		if i.Outcome == "" && r.State == recover.RunRunning {
			outcome = "in progress"
		}
		p.line("%s  %s", p.paint(bold, label(i.Domain, i.Name, i.UUID)), outcome)
		if i.Error != "" {
			p.line("  %s", i.Error)
		}
		if len(i.Steps) == 0 {
			continue
		}
		var rows [][]any
		for _, s := range i.Steps {
			rows = append(rows, []any{s.Name, when(s.Started), stepSeconds(s), stepState(p.Text, s), s.Path})
		}
		p.columns("  ", []any{"step", "began", "took", "state", "file"}, rows, right(3))
		for _, s := range i.Steps {
			if s.Error != "" {
				p.line("  %s: %s", s.Name, s.Error)
			}
		}
	}
	if r.State == recover.RunInterrupted {
		p.line("")
		p.line("Next, finish it: %s", p.paint(bold, p.Again+" resume "+r.Run))
		p.line("If it can't be finished, end it as it is: %s", p.Again+" resume --abandon "+r.Run)
	}
	return p.sendTo(w)
}

func runState(t Text, r recover.RunStatus) printable.Text {
	switch r.State {
	case recover.RunRunning:
		return printable.Sprintf("running (pid %d)", r.PID)
	case recover.RunInterrupted:
		return t.paint(red, string(r.State))
	case recover.RunFinished:
		if r.Abandoned {
			return t.paint(yellow, "finished (ended by hand)")
		}
		return t.paint(green, string(r.State))
	default:
		return printable.Cell(r.State)
	}
}

func stepState(t Text, s recover.StepStatus) printable.Text {
	switch s.State {
	case recover.PhaseDone:
		return t.paint(green, string(s.State))
	case recover.PhaseFailed:
		return t.paint(red, string(s.State))
	default:
		return "begun"
	}
}

func stepSeconds(s recover.StepStatus) string {
	if s.State == recover.PhaseBegin {
		return "-"
	}
	return console.Seconds(s.Seconds)
}

// outcomes counts a run's instances by how they ended.
func outcomes(r recover.RunStatus) string {
	report := recover.RunReport{Command: r.Command}
	for _, i := range r.Instances {
		report.Instances = append(report.Instances, recover.InstanceReport{Outcome: i.Outcome})
	}
	if len(report.Instances) == 0 {
		return "-"
	}
	return strings.TrimSuffix(runSum(report), ".")
}

// when writes a time in the host's time zone.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}
