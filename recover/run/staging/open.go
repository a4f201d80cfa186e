package staging

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// ErrElsewhere: the guest was started, and its definition does not name a disk that was
// published for it. Waiting does not help.
var ErrElsewhere = errors.New("the guest runs on another file than the one that was rescued")

// IsOpen returns nil when the QEMU of a scanned instance has every published disk of a set
// open: by its identity, and for writing. That a path leads to the copy, or that somebody
// else has it open, proves nothing. ErrElsewhere when the instance's definition does not name a
// published disk; recover.ErrUnproven when it does, and QEMU has it not, or not yet.
//
// The console log does not count: a start makes it anew. Nor does a UEFI variable store
// that Nova has made anew, which was agreed to.
func IsOpen(ctx context.Context, s *Set, i recover.Instance) error {
	var want []*stagedFile
	for _, staged := range s.staged {
		nvram := staged.want.Role == recover.RoleNVRAM && s.t.Run.Cloud == nil
		if staged.want.Writable && (staged.want.Role == recover.RoleDisk || nvram) {
			want = append(want, staged)
		}
	}
	if len(want) == 0 {
		return nil
	}
	open, err := procfs.HeldBy(ctx, i.Process.PID)
	if err != nil {
		return fmt.Errorf("%w: what its QEMU has open: %w", recover.ErrUnproven, err)
	}
	if now, err := procfs.Identify(procfs.Dir, i.Process.PID); err != nil || now != i.Process {
		return fmt.Errorf("%w: its QEMU has ended, or is another one by now", recover.ErrUnproven)
	}
	for _, staged := range want {
		if err := isOpen(staged, open, i); err != nil {
			return err
		}
	}
	return nil
}

// isOpen is IsOpen for one copy; open are the files that the QEMU has open.
func isOpen(staged *stagedFile, open []procfs.HeldFile, i recover.Instance) error {
	read := false
	for _, h := range open {
		if !h.Inode().Is(staged.inode, true) {
			continue
		}
		if h.Writable() {
			return nil
		}
		read = true
	}
	path := staged.want.Path
	other, named := namedFor(i.Definition, staged.want)
	switch {
	case !named:
		return fmt.Errorf("%w: as %s it has %s, and the proven copy stands at %s; end the guest before it writes more (virsh destroy %s), "+
			"and name the copy in its definition", ErrElsewhere, staged.want.Target, other, path, i.Domain)
	case read:
		return fmt.Errorf("%w: its QEMU has the published %s open for reading only", recover.ErrUnproven, path)
	default:
		return fmt.Errorf("%w: its QEMU does not have the published %s open", recover.ErrUnproven, path)
	}
}

// namedFor is true when a domain's definition names a published file; else it returns
// what is named in its place.
func namedFor(d recover.Domain, f recover.FilePlan) (other string, named bool) {
	if f.Role == recover.RoleNVRAM {
		return d.NVRAM, filepath.Clean(d.NVRAM) == filepath.Clean(f.Path)
	}
	other = "no file"
	for _, disk := range d.Disks {
		top := disk.Chain[0]
		if top.Path != "" && filepath.Clean(top.Path) == filepath.Clean(f.Path) {
			return top.Path, true
		}
		if disk.Target == f.Target && top.Path != "" {
			other = top.Path
		}
	}
	return other, false
}
