package render

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover/leftover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/printable"
)

// WriteHolds writes what the keeper holds, and what would become of it.
func WriteHolds(w io.Writer, t Text, holds []leftover.Hold) error {
	p := page{Text: t}
	var rows [][]any
	for _, h := range holds {
		state := printable.Text("held elsewhere, or back")
		switch {
		case h.Released && len(h.KeptFor) > 0:
			state = printable.Sprintf("held on for %s", strings.Join(h.KeptFor, ", "))
		case h.Released:
			state = "released"
		case h.Run != "":
			state = printable.Sprintf("of run %s, which is not finished", h.Run)
		case len(h.KeptFor) > 0:
			state = printable.Sprintf("stays held for %s", strings.Join(h.KeptFor, ", "))
		case h.Last:
			state = p.paint(red, "the last copy")
		}
		owners := orDash(strings.Join(h.Instances, ", "))
		rows = append(rows, []any{h.Path, console.Size(h.Allocated), when(h.Since), owners, state})
	}
	p.columns("", []any{"file", "size", "since", "for", "state"}, rows, right(2))
	return p.sendTo(w)
}

// WriteUnclaimed names staged copies of runs that nobody knows any more.
func WriteUnclaimed(w io.Writer, t Text, dirs []leftover.Staging) error {
	p := page{Text: t}
	overviewUnclaimed(&p, dirs)
	return p.sendTo(w)
}

// WriteUnclaimedHolds names what keepers hold that no journal here claims, and keepers that are
// not asked.
func WriteUnclaimedHolds(w io.Writer, t Text, k pin.KeeperStatus) error {
	p := page{Text: t}
	var unclaimed []pin.KeeperHold
	for _, h := range k.Holds {
		if h.Unclaimed {
			unclaimed = append(unclaimed, h)
		}
	}
	if len(unclaimed)+len(k.Others) > 0 {
		p.line("")
	}
	if len(unclaimed) > 0 {
		p.line("Held by the keeper (pid %s) for runs of which this state directory has no journal:", pidsOf(k))
		holdsTable(&p, unclaimed)
	}
	otherKeepers(&p, k.Others)
	return p.sendTo(w)
}

// otherKeepers names the keepers that no run here asks, with what they hold.
func otherKeepers(p *page, others []pin.OtherKeeper) {
	for _, k := range others {
		what := "is of another state directory, " + k.StateDir
		next := "See to it with: OS_RESCUE_STATE_DIR=" + k.StateDir + " " + p.Again + " status"
		switch {
		case k.Silent:
			what = "of " + k.StateDir + " does not answer: it is stopped, or hangs"
			next = fmt.Sprintf("A stopped one goes on with: kill -CONT %d", k.PID)
		case k.Apart:
			what += ", which is gone or has another keeper by now"
		}
		p.line("A keeper (pid %d) %s. It holds %s.", k.PID, what, counted(len(k.Holds), "file"))
		holdsTable(p, k.Holds)
		p.line("%s", next)
	}
}

// holdsTable lists what a keeper holds.
func holdsTable(p *page, holds []pin.KeeperHold) {
	if len(holds) == 0 {
		return
	}
	var rows [][]any
	for _, h := range holds {
		whose := orDash(strings.Join(h.Instances, ", "))
		if h.Unclaimed && h.PinnedBy != "" {
			whose += " (unclaimed: no journal of run " + h.PinnedBy + ")"
		} else if h.Unclaimed {
			whose += " (unclaimed)"
		}
		rows = append(rows, []any{h.Path, console.Size(h.Size), when(h.Since), whose})
	}
	p.columns("  ", []any{"file", "size", "since", "for"}, rows, right(2))
}

// pidsOf are the processes of the keepers that answer.
func pidsOf(k pin.KeeperStatus) string {
	pids := []int{k.PID}
	for _, h := range k.Holds {
		if h.PID != 0 && !slices.Contains(pids, h.PID) {
			pids = append(pids, h.PID)
		}
	}
	return strings.Trim(fmt.Sprint(pids), "[]")
}

// overviewUnclaimed names staged copies of runs that nobody knows any more.
func overviewUnclaimed(p *page, dirs []leftover.Staging) {
	if len(dirs) == 0 {
		return
	}
	var rows [][]any
	for _, d := range dirs {
		rows = append(rows, []any{d.Path, d.Files, console.Size(d.Allocated), orDash(strings.Join(d.Instances, ", "))})
	}
	p.line("")
	p.line("Copies of runs of which this state directory has no journal. Nobody knows whether they are whole, or needed:")
	p.columns("  ", []any{"directory", "files", "size", "for"}, rows, right(2), right(3))
}
