package scan

import (
	"fmt"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// superseded returns what the keeper and the guard hold because a running instance has lost
// it, and what its QEMU, which has own open, does not have: somebody started it on other
// files. Those that a run has proven to be copies count for the lost ones. i.Files have their
// states.
func superseded(l *look, i recover.Instance, own []candidate) ([]recover.File, error) {
	if i.Process.PID == 0 {
		return nil, nil // what is held counts as its file (heldOff)
	}
	var files []recover.File
	for _, p := range l.pins {
		if i.Definition.IsBootFile(p.Meta.Path) {
			continue // QEMU reads it while it starts, and the guest never writes it: none is newer
		}
		if !isLostBy(i.UUID, p) || slices.ContainsFunc(own, func(c candidate) bool { return c.Inode() == p.Inode() }) {
			continue
		}
		at := recover.File{}
		if n := slices.IndexFunc(i.Files, func(f recover.File) bool { return f.Path == p.Meta.Path }); n >= 0 {
			at = i.Files[n]
		}
		if at.State == recover.FileUnknown {
			continue // it is one of the candidates
		}
		copies, err := l.published()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errJournals, err)
		}
		c, isBack := copies.Copy(p.Meta.Path, p.Inode())
		isBack = isBack && c.Identity().Is(at.Identity(), len(at.Holders) > 0)
		if isBack && !compares(l, p, copies) {
			continue
		}
		if n := slices.IndexFunc(files, func(f recover.File) bool { return f.Identity() == p.Inode() }); n >= 0 {
			addHolder(&files[n], candidate{HeldFile: p.HeldFile})
			continue
		}
		f := recover.File{
			Path: p.Meta.Path, Role: p.Meta.Role, Format: p.Meta.Format, Target: p.Meta.Target, Backing: p.Meta.Backing,
			State: recover.FileReplaced, Remedy: recover.RemedyReplace, Proven: isBack, Writable: at.Writable, Holders: []recover.Holder{},
		}
		addHolder(&f, candidate{HeldFile: p.HeldFile})
		files = append(files, f)
	}
	return files, nil
}

// isLostBy is true for a deleted file that is held because the instance has lost it: all that
// a run has pinned, and of the guard's, which holds more, those that it knows to be needed. That
// the instance was defined anew since, as every hard reboot of Nova's does, makes a disk no
// less lost; a base Nova may have fetched again. A file that nobody but its directory says to be
// the instance's is none that its QEMU could have run on.
func isLostBy(uuid string, p pin.Held) bool {
	c := candidate{HeldFile: p.HeldFile}
	retired := p.Meta.Role == recover.RoleBacking && slices.Contains(p.Meta.Retired, uuid)
	needed := p.Meta.Run != pin.GuardRun || p.Meta.Needed && !retired
	return needed && !p.Meta.Stray && c.gone() && slices.Contains(p.Owners, uuid) && verdict.KindOf(p.Meta.Role) == verdict.Essential
}

// compares is true for a pinned file whose published copy was written since, in a scan that compares it.
func compares(l *look, p pin.Held, copies runs.Published) bool {
	if l.thorough == nil {
		return false
	}
	at, err := l.root.Stat(p.Meta.Path)
	f := recover.File{Path: p.Meta.Path, Device: p.Stat.Dev, Inode: p.Stat.Ino, Birth: p.Stat.Birth}
	return err == nil && !copies.IsUnwritten(f, at, true)
}
