package render

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover"
)

// WriteRun writes what became of each instance, every error in full, what to run on other
// hosts, and the totals. The options are those of the run.
func WriteRun(w io.Writer, t Text, r recover.RunReport, o recover.Options) error {
	p := page{Text: t}
	if len(r.Instances) > 0 {
		runTable(&p, r)
		p.line("")
	}
	for _, i := range r.Instances {
		if i.Error == "" && len(i.Notes) == 0 {
			continue
		}
		p.line("%s", p.paint(bold, label(i.Domain, i.Name, i.UUID)))
		if i.Error != "" {
			p.line("  %s: %s", p.paint(outcomeColor(i.Outcome), string(i.Outcome)), i.Error)
		}
		for _, note := range i.Notes {
			p.line("  Note: %s", note)
		}
		p.line("")
	}
	if len(r.Elsewhere) > 0 {
		elsewhere(&p, r.Elsewhere, r.Command, o)
		p.line("")
	}
	if len(r.Warnings) > 0 {
		warnings(&p, r.Warnings)
		p.line("")
	}
	if r.Interrupted {
		p.line("The run was interrupted. Where each instance stands: %s", p.paint(bold, p.Again+" status "+r.Run))
	}
	if r.Abandoned {
		p.line("The run was ended by hand before it was done.")
	}
	p.line("%s", runSum(r))
	return p.sendTo(w)
}

func runTable(p *page, r recover.RunReport) {
	reboot := r.Command == recover.CommandReboot
	var rows [][]any
	for _, i := range r.Instances {
		note := ""
		if i.Error != "" || len(i.Notes) > 0 {
			note = "see below"
		}
		if verified := verifyText(i); verified != "" {
			note = strings.TrimSuffix(verified+"; "+note, "; ")
		}
		row := []any{i.Domain, short(i.Name, 24), p.paint(outcomeColor(i.Outcome), outcomeText(r.Command, i.Outcome))}
		if reboot {
			row = append(row, secondsOrDash(rebootSeconds(i)), note)
		} else {
			row = append(row, secondsOrDash(i.PauseSeconds), secondsOrDash(i.DowntimeSeconds), bytesOrDash(i.Bytes), note)
		}
		rows = append(rows, row)
	}
	if reboot {
		p.columns("", []any{"instance", "name", "outcome", "took", "note"}, rows, right(4))
		return
	}
	p.columns("", []any{"instance", "name", "outcome", "paused", "down", "copied", "note"}, rows, right(4), right(5), right(6))
}

// verifyText says how a live rescue was verified.
func verifyText(i recover.InstanceReport) string {
	switch i.Verified {
	case recover.VerifyRunning:
		return "live, compared in full while it ran"
	case recover.VerifyFull:
		return "live, compared in full under the suspend"
	case recover.VerifyStructure:
		return "live, NOT compared"
	default:
		return ""
	}
}

// rebootSeconds is how long a hard reboot took, including the wait for Nova.
func rebootSeconds(i recover.InstanceReport) float64 {
	var sum float64
	for _, s := range i.Steps {
		if s.Name == "reboot" {
			sum += s.Seconds
		}
	}
	return sum
}

// runSum says in one line how many instances ended how, and the name of the run.
func runSum(r recover.RunReport) string {
	n := make(map[recover.Outcome]int)
	for _, i := range r.Instances {
		n[i.Outcome]++
	}
	var parts []string
	for _, o := range []recover.Outcome{recover.OutcomeRescued, recover.OutcomeIntact, recover.OutcomeSkipped, recover.OutcomeInterrupted,
		recover.OutcomeFailed, recover.OutcomeUnderWay, recover.OutcomeNotBegun} {
		if n[o] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[o], outcomeText(r.Command, o)))
		}
	}
	if unsettled := n[""]; unsettled > 0 {
		parts = append(parts, fmt.Sprintf("%d not finished", unsettled))
	}
	sum := strings.Join(parts, ", ")
	if sum == "" {
		sum = "No instances: nothing to do"
		if len(r.Elsewhere) > 0 {
			sum = "All selected instances are on other hosts: nothing to do here"
		}
	}
	if !r.Started.IsZero() && !r.Finished.IsZero() {
		sum += " in " + console.Seconds(r.Finished.Sub(r.Started).Round(100*time.Millisecond).Seconds())
	}
	sum += "."
	if r.Run != "" {
		sum += " Run " + r.Run + "."
	}
	return sum
}

func outcomeText(command recover.Command, o recover.Outcome) string {
	if o == recover.OutcomeRescued {
		switch command {
		case recover.CommandBackup:
			return "backed up"
		case recover.CommandRestore:
			return "restored"
		case recover.CommandReboot:
			return "rebooted"
		}
	}
	switch o {
	case "":
		return "not finished"
	case recover.OutcomeUnderWay:
		return "under way"
	case recover.OutcomeNotBegun:
		return "not begun"
	}
	return string(o)
}

func outcomeColor(o recover.Outcome) string {
	switch o {
	case recover.OutcomeRescued, recover.OutcomeIntact:
		return green
	case recover.OutcomeSkipped, recover.OutcomeInterrupted, recover.OutcomeUnderWay, recover.OutcomeNotBegun:
		return yellow
	default:
		return red
	}
}

func secondsOrDash(s float64) string {
	if s == 0 {
		return "-"
	}
	return console.Seconds(s)
}

func bytesOrDash(n int64) string {
	if n == 0 {
		return "-"
	}
	return console.Size(n)
}
