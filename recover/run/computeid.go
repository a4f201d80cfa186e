package run

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/owners"
)

// errSwapped: a user who can write the directory has put another file in its place.
var errSwapped = errors.New("another file was put in its place meanwhile")

// computeID is Nova's compute_id in a run that publishes.
type computeID struct {
	settings recover.Settings
	root     *beneath.Root
	owners   *owners.Table
	log      *journal.Writer
}

// putBack puts it back where it is missing and the guard has a copy, before any hard reboot.
// That it can't be put back stops no rescue: the notes for the report say so. The error is the
// journal's.
func (c computeID) putBack() (notes []string, err error) {
	dir := inventory.In(c.settings.StateDir)
	fault := dir.ComputeIDFault(c.root, c.settings.ComputeIDPaths)
	if fault == nil || !fault.Missing() {
		return nil, nil
	}
	step := journal.Record{Step: journal.StepComputeID, Phase: recover.PhaseBegin, Path: fault.Path}
	if err := c.log.Write(step, nil); err != nil {
		return nil, err
	}
	kept, err := dir.ComputeID()
	if err == nil {
		err = c.publish(*kept)
	}
	step.Phase = recover.PhaseDone
	text := fmt.Sprintf("%s, the file with the UUID of Nova's compute node, was put back: nova-compute can start again", fault.Path)
	if err != nil {
		step.Phase, step.Error = recover.PhaseFailed, err.Error()
		text = fmt.Sprintf("%s could not be put back (%v): before nova-compute is started, write %s to it, for nova:nova",
			fault.Path, err, fault.UUID)
	}
	return []string{text}, c.log.Write(step, nil)
}

// publish writes the copy under a name of its own, and gives it its right name.
// Where a run was killed in between, the next one begins anew.
func (c computeID) publish(kept inventory.ComputeID) error {
	dir, _, err := c.root.MkdirAll(filepath.Dir(kept.Path), c.owners.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	const staged = recover.StagePrefix + recover.ComputeIDName
	if err := dir.Remove(staged); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := dir.Create(staged)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(kept.Content)
	if err == nil {
		err = beneath.SetOwner(f, c.ownerOf(kept))
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = beneath.Publish(dir, staged, dir, recover.ComputeIDName)
	}
	if err != nil {
		return errors.Join(err, dir.Remove(staged))
	}
	ours, err := identity.OfFile(f)
	if err != nil {
		return err
	}
	now, err := dir.Stat(recover.ComputeIDName)
	if err == nil && now.Inode() != ours.Inode() {
		err = errSwapped
	}
	return err
}

// ownerOf returns the owner and mode that it had: by name, because a package that was
// installed again may have given its user another number.
func (c computeID) ownerOf(kept inventory.ComputeID) beneath.Owner {
	owner := beneath.Owner{UID: kept.UID, GID: kept.GID, Mode: fs.FileMode(kept.Mode)}
	var uerr, gerr error
	if kept.User != "" {
		owner.UID, uerr = c.root.LookupUser(kept.User)
	}
	if kept.Group != "" {
		owner.GID, gerr = c.root.LookupGroup(kept.Group)
	}
	if uerr != nil || gerr != nil {
		return c.owners.ComputeID()
	}
	return owner
}
