package pin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// Meta is what the holder of a pin keeps beside it: enough to rescue the file after
// its QEMU and the run that pinned it have both ended.
type Meta struct {
	Path    string       `json:"path"`              // where the file belongs
	Role    recover.Role `json:"role"`              // what it is to its instance
	Format  string       `json:"format,omitempty"`  // from libvirt, never probed
	Target  string       `json:"target,omitempty"`  // the disk it belongs to: vda
	Backing string       `json:"backing,omitempty"` // the path of its backing file
	Run     string       `json:"run"`               // the name of the run that pinned it, or GuardRun
	// Needed is set by the guard: an existing instance has lost this file.
	Needed bool `json:"needed,omitempty"`
	// Belongs is set by the guard: the path that a definition gave the file, which may have
	// been renamed since; Path is its last name then. Empty when no definition named it.
	Belongs string `json:"belongs,omitempty"`
	// Retired is set by the guard: the instances whose domain was undefined after this file
	// was deleted. If they have another file at its path now, that is an orderly change.
	Retired []string `json:"retired,omitempty"`
	// Opened is set by the guard: the QEMU of an instance, or virtlogd, has had it open.
	Opened bool `json:"opened,omitempty"`
	// Stray is set by the guard: no definition that it has seen names the file, and no process of
	// an instance has had it open. Whoever can write in an instance's directory can make such.
	Stray bool `json:"stray,omitempty"`
}

// MetaOf returns the Meta of a pin of the keeper's or the guard's. The error is that of a
// record that is no Meta.
func MetaOf(h keeper.Hold) (meta Meta, err error) {
	err = json.Unmarshal(h.Meta, &meta)
	return meta, err
}

// Held is a file that the keeper or the guard holds, with its open descriptor.
type Held struct {
	procfs.HeldFile
	Owners []string // UUIDs of the instances that it is held for; empty when that is not known yet
	Meta   Meta     // what was noted when it was pinned
}

// Lister returns a function that lists what the keeper and the guard of a host hold. A
// guard itself gives own, which lists its pins; everybody else gives nil, and the guard is
// asked, if one runs. That a keeper or a guard does not run is no error. A *GuardFault comes
// beside what the keeper holds and what of the guard's word could be proven.
//
// A guard that did not answer is not asked again: the function is good for one command.
func Lister(stateDir string, own func() ([]Held, error)) func(ctx context.Context) ([]Held, error) {
	asked := (&asker{stateDir: stateDir}).ask
	if own != nil {
		asked = func(context.Context) ([]Held, error) { return own() }
	}
	return func(ctx context.Context) ([]Held, error) {
		// In this order: a guard that ends hands what it holds to the keeper.
		more, fault := asked(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		pins, err := ofKeepers(ctx, stateDir)
		if err != nil {
			return nil, err
		}
		if fault == nil && len(more) == 0 {
			more, fault = asked(ctx) // one that begins takes them back
		}
		return append(pins, more...), fault
	}
}

// The servers that pinsOf asks.
const (
	keeperName = "keeper"
	guardName  = "guard"
)

// pinsOf returns what a keeper or a guard holds. Of what it says only that counts of which it has
// the descriptor: the identity is that of the open file, and its word says whose it is. What a keeper
// has open counts also where its record can't be read. unproven is how many files it names that it
// does not have open, or of which it says nothing that can be read.
func pinsOf(ctx context.Context, c *keeper.Client, who string) (pins []Held, unproven int, err error) {
	holds, err := c.List(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("ask the %s what it holds: %w", who, err)
	}
	held, err := procfs.HeldBy(ctx, c.PID())
	if err != nil {
		return nil, 0, fmt.Errorf("list the open files of the %s: %w", who, err)
	}
	byKey := map[string]procfs.HeldFile{}
	for _, h := range held {
		byKey[h.Inode().Unborn().Key()] = h // of a keeper of a release that knew no births
		byKey[h.Inode().Key()] = h
	}
	for _, h := range holds {
		meta, err := MetaOf(h)
		file, ok := byKey[h.Key]
		if err != nil || !ok {
			unproven++
		}
		if !ok || err != nil && who != keeperName {
			continue
		}
		if err != nil { // what a keeper has open it holds for its owners, whatever was noted of it
			meta = Meta{Path: strings.TrimSuffix(file.Link, procfs.DeletedSuffix), Role: recover.RoleOther, Needed: true}
		}
		pins = append(pins, Held{HeldFile: file, Owners: h.Owners, Meta: meta})
	}
	return pins, unproven, nil
}
