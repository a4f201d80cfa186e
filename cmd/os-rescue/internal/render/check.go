package render

import (
	"fmt"
	"io"
	"strings"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/printable"
)

const (
	// longOutput is how many bytes of output every monitoring system accepts
	// (Nagios: MAX_PLUGIN_OUTPUT_LENGTH, 8 KiB).
	longOutput = 7 << 10
	// inLine is the longest text of a finding in the first line, in characters.
	inLine = 160
	// findingLength is the longest text of a finding by itself, in characters.
	findingLength = 1024
)

// WriteCheck writes the result of a check as a monitoring plugin does
// (https://www.monitoring-plugins.org/doc/guidelines.html): one line with the level,
// the problems and performance data; below it the findings, with what to do next, and
// the instances. No name of an instance or a file can end the line or the text.
func WriteCheck(w io.Writer, t Text, r check.Report, o check.Options) error {
	p := page{Text: t}
	p.line("%s", strings.TrimSuffix("OS-RESCUE "+string(r.Level)+": "+checkLine(r)+" | "+perfdata(r, o), " | "))
	for n, f := range r.Findings {
		if p.text.Len() > longOutput/2 {
			p.line("and %s more: %s", counted(len(r.Findings)-n, "finding"), plugin(p.again("os-rescue check --output json")))
			break
		}
		p.line("%s", short(plugin(string(f.Level)+": "+f.Text), findingLength))
		if f.Next != "" {
			p.line("  Next: %s", plugin(p.again(f.Next)))
		}
	}
	for n, i := range r.Affected {
		var one page
		checkInstance(&one, i)
		if p.text.Len()+one.text.Len() > longOutput {
			p.line("%s more: %s", counted(len(r.Affected)-n, "instance"), plugin(p.again("os-rescue scan")))
			break
		}
		p.text.WriteString(one.text.String())
	}
	checkSources(&p, r)
	return p.sendTo(w)
}

// plugin makes text fit for a plugin's output, in which a | begins performance data
// and a newline ends the finding.
func plugin(s string) string {
	return printable.OneLine(strings.ReplaceAll(s, "|", "?"))
}

// checkLine lists the problems in short.
func checkLine(r check.Report) string {
	var parts []string
	for _, f := range r.Findings {
		if f.Level != check.OK {
			parts = append(parts, short(plugin(f.Text), inLine))
		}
	}
	const most = 3
	if more := len(parts) - most; more > 0 {
		parts = append(parts[:most:most], fmt.Sprintf("%d more", more))
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, "; ")
	case r.Lost() > 0:
		return short(plugin(r.Findings[0].Text), inLine) // below the thresholds
	}
	return counted(r.Instances(), "instance") + ", no lost files"
}

func checkInstance(p *page, i recover.Instance) {
	p.line("%s", plugin(fmt.Sprintf("%s  %s, project %s: %s", label(i.Domain, i.Name, i.UUID), i.State, orDash(project(i)), i.Verdict)))
	const most = 6
	n := 0
	for _, f := range i.Files {
		if f.State == recover.FilePresent || f.Proven {
			continue
		}
		if n++; n <= most {
			p.line("%s", "  "+plugin(fmt.Sprintf("%s: %s, %s, held by %s", f.Path, f.State, fileSize(f.Allocated, f.Size), holders(f))))
		}
	}
	if n > most {
		p.line("  and %s more", counted(n-most, "file"))
	}
	for _, reason := range i.Reasons {
		p.line("  Why: %s", plugin(reason))
	}
	for _, possible := range i.Possible {
		p.line("  Possible: %s", plugin(possible))
	}
}

// checkSources says where the findings come from.
func checkSources(p *page, r check.Report) {
	switch r.Source {
	case check.SourceGuard:
		p.line("Source: the guard (pid %d), which scanned %s earlier.", r.Guard.PID, console.Seconds(scanAge(r)))
	case check.SourceScan:
		p.line("Source: a scan of this host.")
	}
	for _, run := range r.Runs {
		if run.State == recover.RunRunning {
			p.line("Run %s is in progress.", plugin(run.Run))
		}
	}
	if r.Keeper.Running {
		p.line("The keeper (pid %d) holds %s.", r.Keeper.PID, counted(len(r.Keeper.Holds), "file"))
	}
	if r.Guard.Running {
		p.line("The guard holds %s, %d of them deleted.", counted(r.Guard.Held.Files, "file"), r.Guard.Held.DeletedFiles)
	}
}

// scanAge is the age of the scan at the time of the check, in seconds.
func scanAge(r check.Report) float64 { return max(r.Taken.Sub(r.Scanned).Seconds(), 0) }

// perfdata lists the counts as 'label'=value[UOM];[warn];[crit];[min];[max]. A
// threshold is the highest good value. Unknown values are left out.
func perfdata(r check.Report, o check.Options) string {
	var values []string
	add := func(label, format string, args ...any) {
		values = append(values, fmt.Sprintf("'"+label+"'="+format, args...))
	}
	if r.Verdicts != nil {
		all := r.Instances()
		add("instances", "%d;;;0", all)
		add("lost", "%d;%d;%d;0;%d", r.Lost(), max(o.Warning, 1)-1, max(o.Critical, 1)-1, all)
		add("displaced", "%d;0;;0;%d", r.Verdicts[recover.VerdictDisplaced], all)
		add("unknown", "%d;;;0;%d", r.Verdicts[recover.VerdictUnknown], all)
	}
	if r.Runs != nil {
		add("interrupted_runs", "%d;0;;0", r.Interrupted())
		add("half_done", "%d;;0;0", r.HalfDone())
	}
	if r.Held != nil {
		add("held_deleted", "%dB;%s;%s;0", r.Held.Bytes, limitOf(o.WarningHeld), limitOf(o.CriticalHeld))
	}
	if r.Verdicts != nil && !r.Scanned.IsZero() {
		add("scan_age", "%.0fs;%.0f;;0", scanAge(r), o.MaxAge.Seconds())
	}
	return strings.Join(values, " ")
}

func limitOf(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprint(bytes)
}
