package render

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/printable"
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
	scanForeign(&p, r.Foreign)
	if r.GuardFault != "" {
		p.line("%s", p.paint(yellow, "Warning: "+r.GuardFault))
	}
	scanNext(&p, sorted, r)
	return p.sendTo(w)
}

// WriteUnfinished writes which runs were interrupted. They must be finished before a new
// run, which would leave their instances alone.
func WriteUnfinished(w io.Writer, t Text, runs []recover.RunStatus) error {
	p := page{Text: t}
	for _, r := range runs {
		if r.State == recover.RunInterrupted {
			p.line("Run %s was interrupted. Finish it first: %s", r.Run, p.paint(bold, p.Again+" resume"))
		}
	}
	return p.sendTo(w)
}

// scanForeign writes which deleted files are written by processes that libvirt does not know.
func scanForeign(p *page, files []recover.Foreign) {
	if len(files) == 0 {
		return
	}
	p.line("%s", p.paint(red, "Deleted files of instances are written by processes that libvirt does not know:"))
	for _, f := range files {
		of := ""
		if f.UUID != "" {
			of = ", instance " + f.UUID
		}
		p.line("  %s  %s, open as %s (%s%s)",
			f.Path, humanize.IBytes(uint64(f.Size)), f.Descriptor(), f.Process, of)
	}
	p.line("Do not end these processes: what they write is gone with them. Where libvirt has lost its guest, a restart of libvirtd or")
	p.line("virtqemud finds it again, if its state is still in /run/libvirt/qemu. Of an instance that libvirt has as off, a rescue takes")
	p.line("what such a process holds, once it is stopped and writes no more:")
	p.line("%s", p.paint(bold, "kill -STOP PID; "+p.Again+" --instance UUID --holder PID"))
	p.line("")
}

func scanTable(p *page, instances []recover.Instance) {
	var rows [][]any
	for _, i := range instances {
		rows = append(rows, []any{
			i.Domain, short(i.Name, 24), short(project(i), 20), string(i.State),
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
			rows = append(rows, []any{f.Path, string(f.Role), fileState(p.Text, f), fileSize(f.Allocated, f.Size), holders(f)})
		}
		p.columns("  ", []any{"file", "role", "state", "size", "held by"}, rows, right(4))
	}
	for _, f := range i.Files {
		if f.Reason != "" {
			p.line("  %s: %s", f.Path, f.Reason)
		}
	}
	for _, reason := range i.Reasons {
		p.line("  Why: %s", reason)
	}
	for _, possible := range i.Possible {
		p.line("  Possible: %s", possible)
	}
}

// scanNext says what to do. The last line is the command to run, if there is one.
func scanNext(p *page, instances []recover.Instance, r recover.Report) {
	computeID := r.ComputeID
	n, diverging, unusable, superseded := make(map[recover.Verdict]int), 0, 0, 0
	var fetched []string
	for _, i := range instances {
		if len(i.Superseded) > 0 {
			superseded++
		}
		switch {
		case i.Verdict == recover.VerdictConflict && i.IsWhole():
			if i.LacksBootFilesOnly() {
				fetched = append(fetched, i.UUID)
			} else if i.AboutNextStart() != "" {
				diverging++
			}
		case i.Verdict == recover.VerdictConflict && slices.ContainsFunc(i.Files, recover.File.Unusable) &&
			!slices.ContainsFunc(i.Files, recover.File.Lost):
			unusable++
		default:
			n[i.Verdict]++
		}
	}
	rescuable := n[recover.VerdictRecoverable] + n[recover.VerdictConflict]
	held := slices.ContainsFunc(instances, hasHeld)
	if rescuable > 0 || held {
		p.line("Until they are rescued, do not stop, reboot, migrate or delete these instances, neither here nor in")
		p.line("the dashboard: their data exists only as long as the processes that hold it run.")
	}
	if n[recover.VerdictUnknown] > 0 {
		p.line("%s could not be judged: see the reason above. Do not stop or reboot before it is known.",
			counted(n[recover.VerdictUnknown], "instance"))
	}
	if diverging > 0 {
		p.line("Do not stop or reboot %s: it would come back on another file, or not at all. See above what cures it.",
			counted(diverging, "instance"))
	}
	if len(fetched) > 0 {
		p.line("Of %s all is there but the kernel or ramdisk, which a hard reboot through Nova fetches again.", counted(len(fetched), "instance"))
	}
	if unusable > 0 {
		p.line("Do not start %s: a file that it needs is no disk any more. See above what brings it back.", counted(unusable, "instance"))
	}
	if superseded > 0 {
		p.line("%s: running on other files than were lost, and the lost ones are held. See above how to decide which are right.",
			counted(superseded, "instance"))
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
		p.line("%s %s.", d.Path, d.Lack())
	}
	if len(astray) > 0 {
		p.line("No file is lost by that, but Nova may fail to write there. A run sets it right, and pauses nobody for it.")
	}
	if computeID != nil {
		p.line("nova-compute: %s.", computeID.Sentence())
	}
	restorable := computeID != nil && computeID.Missing()
	if restorable {
		p.line("A run puts it back from the guard's copy, and pauses nobody for it.")
	}
	switch {
	case rescuable > 0:
		p.line("Next, see what a rescue would do: %s", p.paint(bold, p.Again+" --all --dry-run"))
	case n[recover.VerdictLost] > 0 && held:
		p.line("No process of this host has the missing files, but the deleted ones are held: see above what must come back before a rescue.")
	case n[recover.VerdictLost] > 0:
		p.line("No process of this host holds the lost files any more: see above what is still possible.")
	case n[recover.VerdictUnknown] > 0:
		p.line("Next, scan again: %s", p.paint(bold, p.Again+" scan"))
	case len(astray) > 0, movable, restorable:
		p.line("Next, see what a run would do: %s", p.paint(bold, p.Again+" --all --dry-run"))
	case len(fetched) > 0:
		p.line("Next: %s", p.paint(bold, p.Again+" reboot --instance "+strings.Join(fetched, ",")))
	case n[recover.VerdictDisplaced] == 0 && diverging+unusable+superseded+len(r.Foreign) == 0:
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

func scanSum(t Text, instances []recover.Instance) printable.Text {
	n := make(map[recover.Verdict]int)
	for _, i := range instances {
		n[i.Verdict]++
	}
	parts := []printable.Text{printable.Text(counted(len(instances), "instance"))}
	for _, v := range recover.Verdicts() {
		if n[v] > 0 {
			parts = append(parts, t.paint(verdictColor(v), fmt.Sprintf("%d %s", n[v], v)))
		}
	}
	return printable.Join(parts, ", ")
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

// hasHeld is true for an instance that has lost files, others of which somebody holds still.
func hasHeld(i recover.Instance) bool {
	isHeld := func(f recover.File) bool { return f.Lost() && len(f.Holders) > 0 }
	return i.Verdict == recover.VerdictLost && slices.ContainsFunc(i.Files, isHeld)
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
			name = "disk " + f.Target
		}
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	if len(i.Superseded) > 0 {
		names = append(names, "lost file held")
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
			who = append(who, fmt.Sprintf("%s %d", h.Process, h.PID))
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

func verdictText(t Text, v recover.Verdict) printable.Text {
	return t.paint(verdictColor(v), string(v))
}

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

func fileState(t Text, f recover.File) printable.Text {
	if f.Proven {
		return t.paint(green, "put back")
	}
	switch f.State {
	case recover.FileDeleted, recover.FileReplaced, recover.FileMissing:
		return t.paint(red, string(f.State))
	case recover.FileDisplaced, recover.FileUnknown:
		return t.paint(yellow, string(f.State))
	default:
		return printable.Cell(f.State)
	}
}
