package render

import (
	"io"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/printable"
)

// WriteAbandonment writes what a run that is ended by hand holds and has staged, and what
// becomes of it and of the guests.
func WriteAbandonment(w io.Writer, t Text, a recover.Abandonment) error {
	p := page{Text: t}
	state := printable.Text("not finished")
	if a.Finished {
		state = p.paint(green, "finished")
	}
	p.line("%s  %s on %s, %s", p.paint(bold, a.Run), orDash(string(a.Command)), orDash(a.Host), state)
	if a.Damage != "" {
		p.line("  Its journal is damaged, and what can be read of it counts: %s", a.Damage)
	}
	for _, i := range a.Instances {
		p.line("")
		p.line("%s", p.paint(bold, label(i.Domain, i.Name, i.UUID)))
		if i.Error != "" {
			p.line("  %s: %s", p.paint(red, "not ended"), i.Error)
		}
		for _, note := range i.Notes {
			p.line("  %s", note)
		}
		var rows [][]any
		for _, h := range i.Holdings {
			at := h.Path
			if at == "" {
				at = h.Of
			}
			rows = append(rows, []any{holdingText(h), console.Size(h.Size), holdingFate(p.Text, h), orDash(at)})
		}
		if len(rows) == 0 {
			p.line("  nothing is held or staged for it")
			continue
		}
		p.columns("  ", []any{"what", "size", "", "file"}, rows, right(2))
	}
	if len(a.Instances) == 0 {
		p.line("Nothing is held or staged for it.")
	}
	return p.sendTo(w)
}

func holdingText(h recover.RunHolding) string {
	switch h.Kind {
	case recover.HoldingPin:
		return "held by the keeper"
	case recover.HoldingCopy:
		return "staged copy"
	case recover.HoldingAside:
		return "put aside"
	}
	return string(h.Kind)
}

// holdingFate says what has become of a holding, or what it is worth.
func holdingFate(t Text, h recover.RunHolding) printable.Text {
	switch {
	case h.Released:
		return "let go"
	case h.Kind == recover.HoldingAside:
		return "stays"
	case h.Last:
		return t.paint(yellow, "last copy")
	}
	return "elsewhere too"
}
