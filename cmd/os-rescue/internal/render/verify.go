package render

import (
	"io"
	"time"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
	"github.com/os-rescue/os-rescue/recover/verify"
)

// WriteVerification writes what a backup was found to be: a line for each instance, the
// files that are not as they should be, and what is in the directory besides.
func WriteVerification(w io.Writer, t Text, r verify.Report) error {
	p := page{Text: t}
	whole := 0
	for _, i := range r.Instances {
		if i.OK {
			whole++
		}
	}
	p.line("%s  backup of host %s: %d of %s whole", p.paint(bold, r.Directory), orDash(r.Host), whole,
		counted(len(r.Instances), "instance"))
	for _, i := range r.Instances {
		p.line("")
		verified(&p, i)
	}
	if len(r.Incomplete) > 0 {
		p.line("")
		p.line("%s: the manifest does not name them, because their backup was interrupted, or is under way. Of them there is no backup:",
			p.paint(red, "incomplete"))
		for _, uuid := range r.Incomplete {
			p.line("  %s", uuid)
		}
	}
	if len(r.Unnamed) > 0 {
		p.line("")
		p.line("Not named by the manifest, and no part of the backup:")
		for _, name := range r.Unnamed {
			p.line("  %s", name)
		}
		if r.More > 0 {
			p.line("  and %s more", counted(r.More, "file"))
		}
	}
	if r.Interrupted {
		p.line("")
		p.line("Interrupted: what is not-read was not verified. Nothing was changed. Again: %s backup verify %s",
			p.Again, Quote(r.Directory))
	}
	return p.sendTo(w)
}

func verified(p *page, i verify.Instance) {
	state := p.paint(green, "whole")
	if !i.OK {
		state = p.paint(red, "NOT whole")
	}
	p.line("%s  taken %s  %s", p.paint(bold, label(i.Domain, i.Name, i.UUID)), i.Taken.Local().Format(time.DateTime), state)
	for _, f := range i.Files {
		line := string(f.State) + "  " + f.Stored + "  " + console.Size(f.Size)
		switch {
		case f.Reason != "":
			line += ": " + f.Reason
		case f.Unchecked != "":
			line += " (not checked as an image: " + f.Unchecked + ")"
		}
		p.line("  %s", line)
	}
}
