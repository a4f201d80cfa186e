package pin

import (
	"context"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// heldSilently returns the files that a keeper has open which does not answer: deleted ones, and
// what a run has noted. Whose
// they are is what the runs of this boot have noted: nothing where they have not.
func heldSilently(ctx context.Context, stateDir string, pid int) ([]Held, error) {
	open, err := procfs.HeldBy(ctx, pid)
	if err != nil {
		return nil, err
	}
	noted := notedPins(statedir.Dir(stateDir))
	var held []Held
	for _, h := range open {
		one := Held{HeldFile: h, Meta: Meta{Path: strings.TrimSuffix(h.Link, procfs.DeletedSuffix), Role: recover.RoleOther}}
		for _, n := range noted {
			if !n.inode.Is(h.Inode(), true) {
				continue
			}
			if one.Owners = append(one.Owners, n.instance); n.meta.Path == "" {
				n.meta.Path = one.Meta.Path
			}
			one.Meta = n.meta
		}
		// On NFS a deleted file has a name still, and a run may have pinned what has one.
		if !h.Unlinked() && !h.SillyRenamed() && len(one.Owners) == 0 {
			continue
		}
		slices.Sort(one.Owners)
		one.Owners = slices.Compact(one.Owners)
		held = append(held, one)
	}
	return held, nil
}

// notedPin is a pin as a journal has it.
type notedPin struct {
	instance string
	inode    recover.Inode
	meta     Meta // without a path if the run had made no plan
}

// notedPins returns the pins of the runs of this boot. A journal that can't be read notes
// nothing.
func notedPins(state statedir.Dir) []notedPin {
	var pins []notedPin
	ids, _ := state.List()
	for _, id := range ids {
		records, _ := journal.Read(state.Run(id))
		if same, err := journal.SameBoot(records); err != nil || !same {
			continue
		}
		plan, _, _ := journal.PlanOf(records)
		for uuid, keys := range journal.PinnedOf(records) {
			files := filesOf(plan, uuid)
			for _, key := range keys {
				inode, ok := recover.ParseKey(key)
				if !ok {
					continue
				}
				pin := notedPin{uuid, inode, Meta{Role: recover.RoleOther, Run: id}}
				for _, f := range files {
					if f.Key() == key {
						pin.meta = Meta{Path: f.Path, Role: f.Role, Format: f.Format, Target: f.Target, Backing: f.Backing, Run: id}
					}
				}
				pins = append(pins, pin)
			}
		}
	}
	return pins
}

func filesOf(plan recover.Plan, uuid string) []recover.FilePlan {
	for _, todo := range plan.Instances {
		if todo.UUID == uuid {
			return todo.Files
		}
	}
	return nil
}
