package plan

import (
	"github.com/os-rescue/os-rescue/recover"
)

// astray returns the directories of an instance's files that are not as the table of
// owners says.
func (p *planner) astray(i recover.Instance) []recover.Directory {
	paths := make([]string, len(i.Files))
	for n, f := range i.Files {
		paths[n] = f.Path
	}
	return p.owners.Astray(p.root, p.owners.Covered(paths))
}

// unnamed returns those of the directories that no other instance's plan has: instances
// share some, and one of them is enough to name it.
func (p *planner) unnamed(dirs []recover.Directory) []recover.Directory {
	var rest []recover.Directory
	for _, d := range dirs {
		if !p.named[d.Path] {
			rest = append(rest, d)
		}
	}
	return rest
}

// ownSteps describes, once in a plan, that directories get their owners.
func (p *planner) ownSteps(dirs []recover.Directory) (steps []string) {
	for _, d := range p.unnamed(dirs) {
		p.named[d.Path] = true
		steps = append(steps, "give "+d.Path+" its owner and mode: it "+d.Lack())
	}
	return steps
}
