package plan

import (
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/owners"
)

// directories plan which directories get their owners.
type directories struct {
	table *owners.Table
	root  *beneath.Root
	named map[string]bool // those that an instance's steps name already, by path
}

// of returns the directories of an instance's files that are not as the table of owners
// says.
func (d *directories) of(i recover.Instance) []recover.Directory {
	paths := make([]string, len(i.Files))
	for n, f := range i.Files {
		paths[n] = f.Path
	}
	return d.table.Astray(d.root, d.table.Covered(paths))
}

// unnamed returns those of the directories that no other instance's steps name: instances
// share some, and one of them is enough.
func (d *directories) unnamed(dirs []recover.Directory) []recover.Directory {
	var rest []recover.Directory
	for _, dir := range dirs {
		if !d.named[dir.Path] {
			rest = append(rest, dir)
		}
	}
	return rest
}

// steps describes, once in a plan, that directories get their owners.
func (d *directories) steps(dirs []recover.Directory) (steps []string) {
	for _, dir := range d.unnamed(dirs) {
		d.named[dir.Path] = true
		steps = append(steps, "give "+dir.Path+" its owner and mode: it "+dir.Lack())
	}
	return steps
}
