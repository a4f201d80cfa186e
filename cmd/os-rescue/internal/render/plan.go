package render

import (
	"io"
	"strings"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover"
)

// Plan writes what a run will do to each instance, in order, the room it takes,
// and what it leaves alone and why.
func (t Text) Plan(w io.Writer, plan recover.Plan) error {
	var p page
	p.line("%s", t.paint(bold, "Plan of a "+string(plan.Command)+" on "+orDash(plan.Host)+", mode "+orDash(plan.Mode)))
	var none []string
	for _, i := range plan.Instances {
		if i.Action == recover.ActionNone {
			none = append(none, console.Clean(i.Domain))
			continue
		}
		p.line("")
		t.planInstance(&p, plan, i)
	}
	if len(none) > 0 {
		p.line("")
		p.line("Nothing to do for %s: %s", counted(len(none), "instance"), strings.Join(none, ", "))
	}
	t.planSpace(&p, plan)
	p.line("")
	p.line("%s", planSum(plan))
	return p.sendTo(w)
}

func (t Text) planInstance(p *page, plan recover.Plan, i recover.InstancePlan) {
	p.line("%s", t.paint(bold, label(i.Domain, i.Name, i.UUID)))
	if i.Action == recover.ActionRefuse {
		p.line("  %s: %s", t.paint(yellow, "left alone"), console.Clean(i.Refusal))
		return
	}
	what := actionText(i.Action)
	if plan.Options.NoReboot && (i.Action == recover.ActionReboot || i.Action == recover.ActionPublish) {
		what += "; it is not started"
	}
	p.line("  %s (found %s); %s to copy", t.paint(actionColor(i.Action), what), orDash(string(i.Found)), console.Size(i.Bytes()))
	for n, step := range i.Steps {
		p.line("  %3d. %s", n+1, console.Clean(step))
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
			note = "a newer one stands there"
		case f.Occupied && plan.Options.ReplaceExisting:
			note = "what stands there is moved aside if it differs"
		case f.Occupied:
			note = "something stands there: it must be the same"
		case f.Content != "":
			note = "made anew"
		}
		rows = append(rows, []any{console.Clean(f.Path), string(f.Role), fileSize(allocated, f.Size), note})
	}
	p.columns("  ", []any{"file", "role", "size", ""}, rows, right(3))
}

func (t Text) planSpace(p *page, plan recover.Plan) {
	if len(plan.Space) == 0 {
		return
	}
	p.line("")
	var rows [][]any
	for _, s := range plan.Space {
		note := ""
		switch {
		case s.Clones:
			note = "copies are clones, which take no room"
		case s.Need > s.Free-s.Headroom:
			note = t.paint(red, "too little for all at once")
		}
		rows = append(rows, []any{console.Clean(s.Path), console.Size(s.Need), console.Size(s.Free), console.Size(s.Headroom), note})
	}
	p.columns("", []any{"file system of", "needed", "free", "kept free", ""}, rows, right(2), right(3), right(4))
	if plan.OneByOne {
		p.line("Not everything fits at once: the instances go one by one, each one's old files let go before the next.")
	}
}

// planSum says in one line what becomes of how many instances.
func planSum(plan recover.Plan) string {
	n := make(map[recover.Action]int)
	for _, i := range plan.Instances {
		n[i.Action]++
	}
	var parts []string
	for _, a := range []struct {
		action recover.Action
		text   string
	}{
		{recover.ActionReboot, "paused, destroyed and started"},
		{recover.ActionPublish, "put back and started"},
		{recover.ActionBackup, "paused and backed up"},
		{recover.ActionPutBack, "put back with no pause"},
		{recover.ActionRefuse, "left alone"},
		{recover.ActionNone, "intact"},
	} {
		if n[a.action] == 0 {
			continue
		}
		text := a.text
		if plan.Options.NoReboot {
			text = strings.NewReplacer(" and started", "", "paused, destroyed", "paused and destroyed").Replace(text)
		}
		parts = append(parts, counted(n[a.action], "instance")+" "+text)
	}
	if len(parts) == 0 {
		return "No instances: nothing to do."
	}
	return "In sum: " + strings.Join(parts, ", ") + "."
}

func actionText(a recover.Action) string {
	switch a {
	case recover.ActionPutBack:
		return "put back while it runs, with no pause"
	case recover.ActionReboot:
		return "pause, copy, prove, destroy, put back, start"
	case recover.ActionPublish:
		return "put back, start"
	case recover.ActionBackup:
		return "pause, copy, prove, let it go on"
	default:
		return string(a)
	}
}

func actionColor(a recover.Action) string {
	if a == recover.ActionReboot {
		return red
	}
	return bold
}
