package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// fault is a word of os-rescue's that is not true, or a byte that it has lost.
type fault struct {
	rule string // which rule it breaks: the same fault in another sequence has the same
	text string
}

func (f *fault) Error() string { return f.rule + "\n      " + f.text }

// observe finds the truth about each guest, and asks for os-rescue's word.
func (w *world) observe(ctx context.Context) error {
	w.truths, w.verdicts = map[*guest]truth{}, map[*guest]recover.Instance{}
	for _, g := range w.guests {
		t, err := look(ctx, w, g)
		if err != nil {
			return err
		}
		if !t.running && t.intact() { // what a run has put back, too
			for n, d := range g.disks {
				if t.disks[n].next == d.path {
					w.take(d)
				}
			}
		}
		w.truths[g] = t
	}
	r := w.osRescue("scan", "--output", "json")
	var report recover.Report
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || r.Code > 1 { // 1: some are unknown
		return &fault{"a scan works", fmt.Sprintf("exit code %d: %v %s", r.Code, err, r.Stderr)}
	}
	for _, g := range w.guests {
		n := slices.IndexFunc(report.Instances, func(i recover.Instance) bool { return i.UUID == g.uuid })
		if n < 0 {
			return &fault{"a scan names every instance", g.name + " is missing"}
		}
		w.verdicts[g] = report.Instances[n]
	}
	w.check = w.osRescue("check")
	return nil
}

// pids returns the pids of the guests' QEMUs.
func (w *world) pids() map[*guest]int {
	pids := map[*guest]int{}
	for _, g := range w.guests {
		pids[g] = g.pid
	}
	return pids
}

// judge holds os-rescue's word against the truth.
func (w *world) judge() *fault {
	for _, g := range w.guests {
		i, t := w.verdicts[g], w.truths[g]
		if rule := verdictRule(i, t); rule != "" {
			return &fault{rule, describe(g, i, t)}
		}
	}
	for _, g := range w.guests {
		t := w.truths[g]
		told := short(fmt.Sprintf("%s: %s\n      truth: %s", g.name, strings.TrimSpace(w.check.Stdout), t))
		if w.check.Code == 0 && !t.intact() && t.held && !onlyElsewhere(t) {
			return &fault{"check says OK while an instance would not come back", told}
		}
		if w.check.Code == 0 && t.nameless() != "" {
			return &fault{"check says OK while QEMU has a deleted file", told}
		}
	}
	return nil
}

func describe(g *guest, i recover.Instance, t truth) string {
	says := append(append([]string{}, i.Reasons...), i.Possible...)
	for _, f := range i.Files {
		if f.State != recover.FilePresent {
			says = append(says, fmt.Sprintf("[%s %s %s]", f.Path, f.State, f.Reason))
		}
	}
	return short(fmt.Sprintf("%s is %q: %s\n      truth: %s", g.name, i.Verdict, strings.Join(says, "; "), t))
}

// onlyElsewhere is true when nothing is amiss but that the next start has no disk of this
// target, and the disk's file is still there.
func onlyElsewhere(t truth) bool {
	for _, d := range t.disks {
		if d.next != "" && (d.problem != "" || !d.same) || d.nameless {
			return false
		}
	}
	return true
}

// verdictRule returns the rule that a verdict breaks, empty when it breaks none.
func verdictRule(i recover.Instance, t truth) string {
	v := i.Verdict
	intact := t.intact()
	says := strings.Join(append(append([]string{}, i.Reasons...), i.Possible...), "\n")
	nothingLost := strings.Contains(says, "nothing is lost") || strings.Contains(says, "nothing is deleted")
	switch {
	case v == recover.VerdictUnaffected:
		return "an instance with local disks is never unaffected"
	case nothingLost && t.nameless() != "":
		return "nothing is lost, it says, while QEMU has a deleted file that the next start needs"
	case nothingLost && !t.held:
		return "nothing is lost, it says, while nobody has it"
	case v == recover.VerdictLost && t.held && !intact:
		return "lost, it says, while a process has every byte"
	case v == recover.VerdictUnknown && !t.alike && !t.renamed && (t.running || t.held || !t.odd):
		return "unknown, it says, although it can be known"
	case v == recover.VerdictDisplaced && t.nameless() != "":
		return "displaced, it says, while a file is deleted: the worst file decides"
	}
	if intact {
		return intactRule(v, t)
	}
	switch {
	case v != recover.VerdictIntact:
		if !t.running && !t.held && v != recover.VerdictLost {
			if t.taken() || (t.odd || t.renamed) && v == recover.VerdictUnknown { // a stranger is in its place, and nobody can know
				return ""
			}
			return fmt.Sprintf("%s, it says, while nobody has it", v)
		}
		return ""
	case t.running && onlyElsewhere(t):
		return "" // a disk that was attached to the running guest alone, and is whole
	case t.running && t.redirected():
		return "intact, it says, although the next start opens another file than QEMU has"
	case t.running:
		return "intact, it says, although a destroy and a start lose something"
	case t.held:
		return "intact, it says, while what a process holds of it is not at its path"
	case t.taken():
		return "" // nobody can know that what stands there is another
	default:
		return "intact, it says, although it can't start"
	}
}

// intactRule is verdictRule for an instance of which nothing is amiss with its disks.
func intactRule(v recover.Verdict, t truth) string {
	switch {
	case v == recover.VerdictIntact && t.small == "":
		return ""
	case (t.redirected() || t.unknownToNova()) && v != recover.VerdictLost && v != recover.VerdictUnknown:
		return "" // the next start opens the same file by another name, or Nova's would open another
	case t.copied && v != recover.VerdictLost && v != recover.VerdictUnknown:
		return "" // whether a copy is one, a scan need not know
	case t.small == "":
		return fmt.Sprintf("%s, it says, although nothing is amiss", v)
	case v == recover.VerdictLost:
		return "lost, it says, for a file that is made anew"
	default:
		return ""
	}
}

// judgeRun holds a run's word against the truth. before is what was true before it.
func (w *world) judgeRun(before, after map[*guest]truth, pids map[*guest]int) *fault {
	r := w.last
	for _, g := range w.guests {
		was, is := before[g], after[g]
		told := func(text string) string {
			return short(fmt.Sprintf("%s: %s\n      exit code %d%s\n      before: %s\n      now: %s",
				g.name, text, r.result.Code, r.summary(), was, is))
		}
		for _, i := range r.report.Instances {
			if i.UUID != g.uuid {
				continue
			}
			done := i.Outcome == recover.OutcomeRescued || i.Outcome == recover.OutcomeIntact
			whole := is.intact() || is.running && onlyElsewhere(is) || said(r, is) ||
				!was.running && !was.held && was.taken() // nobody can know that what stands there is another
			switch {
			case done && !whole:
				return &fault{fmt.Sprintf("%s, a run says, although a byte would be missing", i.Outcome), told(is.String())}
			case i.Outcome == recover.OutcomeSkipped && pids[g] != 0 && g.pid != pids[g]:
				return &fault{"skipped, a run says, although it has ended the guest", told("another QEMU, or none")}
			case i.Outcome == recover.OutcomeFailed && was.running && !is.running && !is.intact():
				return &fault{"a run has ended a guest and not brought it back", told("it is off")}
			}
		}
		if was.linked && !is.linked {
			return &fault{"a run lost what was there before", told("nobody has it any more")}
		}
	}
	return nil
}

// said is true when nothing is amiss any more but that the next start opens another file
// than QEMU has, and a run's report names that file.
func said(r *run, t truth) bool {
	for _, d := range t.disks {
		switch {
		case d.same && d.problem == "":
		case d.nameless || d.next == d.now || !strings.Contains(r.result.Stdout, d.next):
			return false
		}
	}
	return true
}
