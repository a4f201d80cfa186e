package render

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover"
)

// WriteScan writes a table of all instances, the worst first, then the files of each
// affected instance and the reasons, and what to do next.
func WriteScan(w io.Writer, t Text, r recover.Report) error {
	p := page{Text: t}
	sorted := worstFirst(r.Instances)
	p.line("%s  %s", p.paint(bold, orDash(r.Host)), scanSum(p.Text, sorted))
	if len(sorted) > 0 {
		p.line("")
		scanTable(&p, sorted)
	}
	for _, i := range sorted {
		if affected(i) {
			p.line("")
			scanInstance(&p, i)
		}
	}
	p.line("")
	scanNext(&p, sorted)
	return p.sendTo(w)
}

// WriteUnfinished writes which runs were interrupted. They must be finished before a new
// run, which would leave their instances alone.
func WriteUnfinished(w io.Writer, t Text, runs []recover.RunStatus) error {
	p := page{Text: t}
	for _, r := range runs {
		if r.State == recover.RunInterrupted {
			p.line("Run %s was interrupted. Finish it first: %s", console.Clean(r.Run), p.paint(bold, p.Again+" resume"))
		}
	}
	return p.sendTo(w)
}

func scanTable(p *page, instances []recover.Instance) {
	var rows [][]any
	for _, i := range instances {
		rows = append(rows, []any{
			console.Clean(i.Domain), short(i.Name, 24), short(project(i), 20), string(i.State),
			verdictText(p.Text, i.Verdict), orDash(strings.Join(trouble(i), ", ")), scanSize(i),
		})
	}
	p.columns("", []any{"domain", "name", "project", "state", "verdict", "affected", "size"}, rows, right(7))
}

func scanInstance(p *page, i recover.Instance) {
	p.line("%s  %s", p.paint(bold, label(i.Domain, i.Name, i.UUID)), verdictText(p.Text, i.Verdict))
	if len(i.Files) > 0 {
		var rows [][]any
		for _, f := range i.Files {
			rows = append(rows, []any{console.Clean(f.Path), string(f.Role), fileState(p.Text, f), fileSize(f.Allocated, f.Size), holders(f)})
		}
		p.columns("  ", []any{"file", "role", "state", "size", "held by"}, rows, right(4))
	}
	for _, f := range i.Files {
		if f.Reason != "" {
			p.line("  %s: %s", console.Clean(f.Path), console.Clean(f.Reason))
		}
	}
	for _, reason := range i.Reasons {
		p.line("  Why: %s", console.Clean(reason))
	}
	for _, possible := range i.Possible {
		p.line("  Possible: %s", console.Clean(possible))
	}
}

// scanNext says what to do. The last line is the command to run, if there is one.
func scanNext(p *page, instances []recover.Instance) {
	n, diverging := make(map[recover.Verdict]int), 0
	for _, i := range instances {
		switch {
		case i.Verdict == recover.VerdictConflict && i.IsWhole():
			diverging++
		default:
			n[i.Verdict]++
		}
	}
	rescuable := n[recover.VerdictRecoverable] + n[recover.VerdictConflict]
	if rescuable > 0 {
		p.line("Until they are rescued, do not stop, reboot, migrate or delete these instances, neither here nor in")
		p.line("the dashboard: their data exists only as long as the processes that hold it run.")
	}
	if n[recover.VerdictUnknown] > 0 {
		p.line("%s could not be judged: see the reason above. Do not stop or reboot before it is known.",
			counted(n[recover.VerdictUnknown], "instance"))
	}
	if diverging > 0 {
		p.line("Do not stop or reboot %s: it would come back on another file. See above what cures it.", counted(diverging, "instance"))
	}
	movable := slices.ContainsFunc(instances, func(i recover.Instance) bool { return slices.ContainsFunc(i.Files, isNameable) })
	switch {
	case n[recover.VerdictDisplaced] > 0 && movable:
		p.line("Displaced files are not deleted. A run gives those their names back that are on their file system still; put the others, or")
		p.line("the mount, back where they belong.")
	case n[recover.VerdictDisplaced] > 0:
		p.line("Displaced files are not deleted: put them, or the mount, back where they belong.")
	}
	astray := directories(instances)
	for _, d := range astray {
		p.line("%s %s.", console.Clean(d.Path), d.Lack())
	}
	if len(astray) > 0 {
		p.line("No file is lost by that, but Nova may fail to write there. A run sets it right, and pauses nobody for it.")
	}
	switch {
	case rescuable > 0:
		p.line("Next, see what a rescue would do: %s", p.paint(bold, p.Again+" --all --dry-run"))
	case n[recover.VerdictLost] > 0:
		p.line("No process holds the lost files any more: see above what is still possible.")
	case n[recover.VerdictUnknown] > 0:
		p.line("Next, scan again: %s", p.paint(bold, p.Again+" scan"))
	case len(astray) > 0, movable:
		p.line("Next, see what a run would do: %s", p.paint(bold, p.Again+" --all --dry-run"))
	case n[recover.VerdictDisplaced] == 0 && diverging == 0:
		p.line("Nothing is lost: there is nothing to do.")
	}
}

// isNameable is true for a displaced file that a run can give its name back.
func isNameable(f recover.File) bool {
	return f.State == recover.FileDisplaced && (f.Remedy == recover.RemedyLinkBack || f.Remedy == recover.RemedyMoveBack)
}

// directories returns those of all instances that are not as the table of owners says, each
// once.
func directories(instances []recover.Instance) []recover.Directory {
	var dirs []recover.Directory
	for _, i := range instances {
		for _, d := range i.Directories {
			if !slices.Contains(dirs, d) {
				dirs = append(dirs, d)
			}
		}
	}
	return dirs
}

func scanSum(t Text, instances []recover.Instance) string {
	n := make(map[recover.Verdict]int)
	for _, i := range instances {
		n[i.Verdict]++
	}
	parts := []string{counted(len(instances), "instance")}
	for _, v := range recover.Verdicts() {
		if n[v] > 0 {
			parts = append(parts, t.paint(verdictColor(v), fmt.Sprintf("%d %s", n[v], v)))
		}
	}
	return strings.Join(parts, ", ")
}

func worstFirst(instances []recover.Instance) []recover.Instance {
	rank := make(map[recover.Verdict]int)
	for n, v := range recover.Verdicts() {
		rank[v] = n
	}
	sorted := append([]recover.Instance(nil), instances...)
	sort.SliceStable(sorted, func(a, b int) bool {
		if x, y := rank[sorted[a].Verdict], rank[sorted[b].Verdict]; x != y {
			return x < y
		}
		return sorted[a].Domain < sorted[b].Domain
	})
	return sorted
}

func affected(i recover.Instance) bool {
	return i.Verdict != recover.VerdictIntact && i.Verdict != recover.VerdictUnaffected
}

// trouble names the kinds of files that are not where they should be.
func trouble(i recover.Instance) []string {
	var names []string
	seen := make(map[string]bool)
	for _, f := range i.Files {
		if f.State == recover.FilePresent || f.Proven {
			continue
		}
		name := strings.ReplaceAll(string(f.Role), "-", " ")
		switch {
		case f.Role == recover.RoleDiskInfo:
			name = "disk.info"
		case f.Role == recover.RoleDisk && f.Target != "":
			name = "disk " + console.Clean(f.Target)
		}
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// scanSize is the size of the data at stake: that of the files that are not where
// they should be.
func scanSize(i recover.Instance) string {
	var n int64
	for _, f := range i.Files {
		if f.State != recover.FilePresent && !f.Proven {
			n += f.Allocated
		}
	}
	if n == 0 {
		return "-"
	}
	return console.Size(n)
}

// fileSize is the space that a file takes, and its apparent size if that is more.
func fileSize(allocated, apparent int64) string {
	if allocated == 0 && apparent == 0 {
		return "-"
	}
	s := console.Size(allocated)
	if full := console.Size(apparent); full != s && apparent > allocated {
		s += " of " + full
	}
	return s
}

func holders(f recover.File) string {
	var who []string
	seen := make(map[int]bool)
	for _, h := range f.Holders {
		if !seen[h.PID] {
			seen[h.PID] = true
			who = append(who, fmt.Sprintf("%s %d", console.Clean(h.Process), h.PID))
		}
	}
	if len(who) == 0 {
		return "nobody"
	}
	if more := len(who) - 3; more > 0 { // a backing file may have dozens
		who = append(who[:3], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(who, ", ")
}

func project(i recover.Instance) string {
	if i.ProjectName != "" {
		return i.ProjectName
	}
	return i.ProjectID
}

func verdictText(t Text, v recover.Verdict) string { return t.paint(verdictColor(v), string(v)) }

func verdictColor(v recover.Verdict) string {
	switch v {
	case recover.VerdictLost, recover.VerdictConflict, recover.VerdictRecoverable:
		return red
	case recover.VerdictDisplaced, recover.VerdictUnknown:
		return yellow
	case recover.VerdictIntact:
		return green
	default:
		return faint
	}
}

func fileState(t Text, f recover.File) string {
	if f.Proven {
		return t.paint(green, "put back")
	}
	switch f.State {
	case recover.FileDeleted, recover.FileReplaced, recover.FileMissing:
		return t.paint(red, string(f.State))
	case recover.FileDisplaced, recover.FileUnknown:
		return t.paint(yellow, string(f.State))
	default:
		return string(f.State)
	}
}
