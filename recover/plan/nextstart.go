package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// wholeButDiverging says of an instance that misses no file, but that would not start on
// the files that it has, how it is cured. There is nothing in it for a run to do.
func wholeButDiverging(i recover.Instance) string {
	return "its files are in place, but do not stop or reboot it: " + i.AboutNextStart()
}

// starter returns who starts an instance at the end of the run.
func (p *planner) starter() recover.Starter {
	if p.Cloud != nil {
		return recover.StarterNova
	}
	return recover.StarterLibvirt
}

// startsElsewhere says why nothing of an instance may be destroyed or started: it would
// come back on another file than the one that is rescued. Empty when it would not. What
// would not matter in this run, but in a later start, is a warning.
func (p *planner) startsElsewhere(i recover.Instance, todo recover.InstancePlan) string {
	ends := todo.Action == recover.ActionReboot
	starts := todo.Action == recover.ActionPublish && todo.Found != recover.StateShutOff && !p.Options.NoReboot
	if !ends && !starts {
		return ""
	}
	why, cure := i.StartsElsewhere(p.starter()), i.CureOfNextStart()
	if why == "" && starts && p.Command == recover.CommandRestore {
		d, found := olderThanItsDefinition(i.Definition, todo.Files)
		if found {
			why, cure = d.Sentence(), d.Cure(i.Domain)
		}
	}
	switch {
	case why == "":
		return ""
	case starts:
		return fmt.Sprintf("%s; --no-reboot puts its files back and leaves it off, and then: %s", why, cure)
	case todo.NotLive != "":
		return fmt.Sprintf("%s, and mode live, which would keep it on the file that it has, can't rescue it: %s", why, todo.NotLive)
	case p.Command == recover.CommandRestore:
		return fmt.Sprintf("%s: nothing was destroyed; first: %s", why, cure)
	default:
		return fmt.Sprintf("%s: nothing was destroyed; --mode live brings its files back and keeps it on the file that it has, "+
			"and then: %s", why, cure)
	}
}

// olderThanItsDefinition finds a disk in a backup of a domain that is off by now whose
// definition names another file in its place: it would be started on that one. The disk
// of a rescue mode that has ended is missed by nobody.
func olderThanItsDefinition(d recover.Domain, stored []recover.FilePlan) (recover.Divergence, bool) {
	for _, f := range stored {
		if f.Role != recover.RoleDisk || !f.Writable || strings.HasSuffix(f.Path, ".rescue") {
			continue
		}
		named := slices.ContainsFunc(d.Disks, func(disk recover.Disk) bool { return disk.Chain[0].Path == f.Path })
		n := slices.IndexFunc(d.Disks, func(disk recover.Disk) bool { return disk.Target == f.Target })
		if !named && n >= 0 {
			return recover.Divergence{Target: f.Target, By: []recover.Starter{recover.StarterLibvirt},
				Open: f.Path, Next: d.Disks[n].Chain[0].Path, Writable: true}, true
		}
	}
	return recover.Divergence{}, false
}
