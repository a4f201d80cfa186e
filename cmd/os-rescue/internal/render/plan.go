package render

import (
	"io"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/printable"
)

// WritePlan writes what a run will do to each instance, in order, the space that it needs,
// and which instances it leaves alone and why.
func WritePlan(w io.Writer, t Text, plan recover.Plan) error {
	p := page{Text: t}
	p.line("%s", p.paint(bold, planTitle(plan)))
	var none []string
	for _, i := range plan.Instances {
		if i.Action == recover.ActionNone {
			none = append(none, i.Domain)
			continue
		}
		p.line("")
		planInstance(&p, plan, i)
	}
	if len(none) > 0 {
		p.line("")
		p.line("Nothing to do for %s: %s", counted(len(none), "instance"), strings.Join(none, ", "))
	}
	planSpace(&p, plan)
	p.line("")
	if len(plan.Elsewhere) > 0 {
		elsewhere(&p, plan.Elsewhere, plan.Command, plan.Options)
		p.line("")
	}
	if len(plan.Warnings) > 0 {
		warnings(&p, plan.Warnings)
		p.line("")
	}
	p.line("%s", planSum(plan))
	return p.sendTo(w)
}

func planTitle(plan recover.Plan) string {
	title := "Plan of a " + string(plan.Command) + " on " + orDash(plan.Host)
	switch {
	case plan.Command == recover.CommandReboot && plan.Options.Reboot.Remote:
		title = "Plan of a reboot from the scans of other hosts"
	case plan.Command == recover.CommandReboot, plan.Command == recover.CommandBackup:
	case plan.Options.Offline:
		title += ", mode " + orDash(string(plan.Mode)) + ", without Nova"
	default:
		title += ", mode " + orDash(string(plan.Mode))
	}
	return title
}

func planInstance(p *page, plan recover.Plan, i recover.InstancePlan) {
	p.line("%s", p.paint(bold, label(i.Domain, i.Name, i.UUID)))
	if i.Action == recover.ActionRefuse {
		p.line("  %s: %s", p.paint(yellow, "left alone"), i.Refusal)
		return
	}
	found := "found " + orDash(string(i.Found))
	if i.Server != nil {
		found += ", " + novaState(*i.Server)
	}
	copies := ""
	if i.Action != recover.ActionHardReboot && (len(i.Files) > 0 || !touchesNames(i.Action)) {
		copies = "; " + console.Size(i.Bytes()) + " to copy"
	}
	p.line("  %s (%s)%s", p.paint(actionColor(i.Action), actionText(plan, i)), found, copies)
	if i.Server != nil && i.Server.Fault != "" {
		p.line("  Nova's last error: %s", i.Server.Fault)
	}
	if i.NotLive != "" {
		p.line("  not live: %s", i.NotLive)
	}
	if i.NextStart != "" {
		p.line("  afterwards: %s", i.NextStart)
	}
	for n, step := range i.Steps {
		p.line("  %3d. %s", n+1, step)
	}
	if len(i.Files) == 0 {
		return
	}
	var rows [][]any
	for _, f := range i.Files {
		note, allocated := "", f.Allocated
		if f.Content != "" {
			allocated = f.Size
		}
		switch {
		case f.Occupied && f.Role == recover.RoleConsoleLog:
			note = "a newer file is in its place"
		case f.Occupied && plan.Options.ReplaceExisting:
			note = "the file in its place is moved aside if it differs"
		case f.Occupied:
			note = "the file in its place must be identical"
		case f.Content != "":
			note = "created anew"
		}
		rows = append(rows, []any{f.Path, string(f.Role), fileSize(allocated, f.Size), note})
	}
	p.columns("  ", []any{"file", "role", "size", ""}, rows, right(3))
}

func planSpace(p *page, plan recover.Plan) {
	if len(plan.Space) == 0 {
		return
	}
	p.line("")
	var rows [][]any
	for _, s := range plan.Space {
		note := printable.Text("")
		switch {
		case s.Clones:
			note = "copies are clones, which take no space"
		case s.Need > s.Free-s.Headroom:
			note = p.paint(red, "too little for all at once")
		}
		rows = append(rows, []any{s.Path, console.Size(s.Need), console.Size(s.Free), console.Size(s.Headroom), note})
	}
	p.columns("", []any{"file system of", "needed", "free", "kept free", ""}, rows, right(2), right(3), right(4))
	if plan.OneByOne {
		p.line("Not everything fits at once: one instance follows the other, and its old files are released before the next.")
	}
}

// planSum says in one line how many instances get which action.
func planSum(plan recover.Plan) string {
	n := make(map[string]int)
	var order []string
	for _, a := range []recover.Action{
		recover.ActionLive, recover.ActionReboot, recover.ActionPublish, recover.ActionHardReboot, recover.ActionBackup,
		recover.ActionPutBack, recover.ActionMoveBack, recover.ActionLinkBack, recover.ActionDirectories,
		recover.ActionRefuse, recover.ActionNone,
	} {
		for _, i := range plan.Instances {
			if i.Action != a {
				continue
			}
			text := sumText(plan, i)
			if n[text] == 0 {
				order = append(order, text)
			}
			n[text]++
		}
	}
	var parts []string
	for _, text := range order {
		parts = append(parts, counted(n[text], "instance")+" "+text)
	}
	switch {
	case len(parts) == 0 && len(plan.Elsewhere) > 0:
		return "All selected instances are on other hosts: nothing to do here."
	case len(parts) == 0:
		return "No instances: nothing to do."
	}
	return "In total: " + strings.Join(parts, ", ") + "."
}

func sumText(plan recover.Plan, i recover.InstancePlan) string {
	switch i.Action {
	case recover.ActionLive:
		return "rescued live" + whileRunning(i, " (suspended for a moment)", "")
	case recover.ActionReboot:
		return listed("paused", "destroyed", comeback(plan, i, "", "started", "hard rebooted"))
	case recover.ActionPublish:
		return listed("put back", comeback(plan, i, "", "started", "hard rebooted"))
	case recover.ActionHardReboot:
		return "hard rebooted"
	case recover.ActionBackup:
		return "paused and backed up"
	case recover.ActionPutBack:
		return "put back with no pause"
	case recover.ActionMoveBack:
		return "moved back with no pause"
	case recover.ActionLinkBack:
		return "linked back with no pause"
	case recover.ActionDirectories:
		return "with directories to be given their owners"
	case recover.ActionRefuse:
		return "left alone"
	case recover.ActionNone:
		return "intact"
	default:
		return string(i.Action)
	}
}

func actionText(plan recover.Plan, i recover.InstancePlan) string {
	switch i.Action {
	case recover.ActionPutBack:
		return "put back while it runs, with no pause"
	case recover.ActionMoveBack:
		return "move files back to their names while it runs, with no pause"
	case recover.ActionLinkBack:
		return "link files back to their names while it runs, with no pause"
	case recover.ActionDirectories:
		return "give directories their owners; it is not touched"
	case recover.ActionLive:
		return "live, no reboot: " + whileRunning(i,
			"mirror while it runs, suspend for a moment, move it over",
			"mirror it, move it over, leave it paused")
	case recover.ActionReboot:
		return "pause, copy, verify, destroy, put back" + comeback(plan, i, "; it stays off", ", start", ", hard reboot")
	case recover.ActionPublish:
		return "put back" + comeback(plan, i, "; it stays off", ", start", ", hard reboot")
	case recover.ActionHardReboot:
		return "hard reboot through Nova"
	case recover.ActionBackup:
		return "pause, copy, verify, continue"
	default:
		return string(i.Action)
	}
}

// touchesNames is true for an action that may copy nothing.
func touchesNames(a recover.Action) bool {
	return a == recover.ActionDirectories || a == recover.ActionLinkBack || a == recover.ActionMoveBack
}

// whileRunning returns paused for an instance that was found paused, else running.
func whileRunning(i recover.InstancePlan, running, paused string) string {
	if i.Found == recover.StatePaused {
		return paused
	}
	return running
}

// comeback returns off, start or reboot, by how an instance gets back into service
// when its files are back: not at all, started by libvirt, or hard rebooted by Nova.
func comeback(plan recover.Plan, i recover.InstancePlan, off, start, reboot string) string {
	switch {
	case plan.Options.NoReboot, i.Action == recover.ActionPublish && i.Found == recover.StateShutOff:
		return off
	case plan.Options.Offline, i.Server == nil:
		return start
	default:
		return reboot
	}
}

// listed joins words as in a sentence, without the empty ones.
func listed(words ...string) string {
	words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

func actionColor(a recover.Action) string {
	if a == recover.ActionReboot || a == recover.ActionHardReboot {
		return red
	}
	return bold
}
