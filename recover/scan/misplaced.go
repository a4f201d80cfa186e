package scan

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// startRoot is the "/" in which the next start of a domain looks up paths, as far as that is
// known. The settings' root is libvirt's for what is in the instances path, and for
// everything else only if it was found through libvirt's process (package hostroot): a
// libvirt in a container may have this host's instances and a /var/lib/libvirt of its own.
// For the rest there is nothing better than what the domain's QEMU sees.
type startRoot struct {
	settings   recover.Settings
	home, tree places
}

func (r startRoot) of(path string) places {
	if r.settings.RootName != "" || recover.IsBelow(path, r.settings.InstancesPath) {
		return r.home
	}
	return r.tree
}

// Stat is part of places.
func (r startRoot) Stat(path string) (identity.Status, error) { return r.of(path).Stat(path) }

// Resolve is part of places.
func (r startRoot) Resolve(path string) string { return r.of(path).Resolve(path) }

// misses is true for a file that stands at its path as QEMU sees it, and which the next start
// would not find there.
func (r startRoot) misses(f recover.File) (bool, error) {
	if f.State != recover.FilePresent || verdict.KindOf(f.Role) != verdict.Essential {
		return false, nil
	}
	st, err := r.Stat(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	// Both names were looked up just now, and it is there to be found by the first: a file
	// that two directories share by a mount of its own has one number on one device.
	return !st.Inode().Is(f.Identity(), true), err
}

// misplaced says why nothing may be published for an instance: other directories are meant by
// its paths than the settings say. Empty where that is not so.
func misplaced(i recover.Instance, settings recover.Settings) string {
	if where := outside(i, settings.InstancesPath); where != "" {
		return fmt.Sprintf("its disks are in %s, but instances_path is %s (from %s), so Nova would look for them there: set instances_path to "+
			"the directory that Nova uses, or have Nova use that of the disks, then scan again",
			where, settings.InstancesPath, settings.InstancesPathFrom)
	}
	for _, f := range i.Files {
		below := recover.IsBelow(f.Path, settings.InstancesPath)
		if !f.OtherRoot || f.Role == recover.RoleOther || !below && !f.Lost() && !f.Unseen {
			continue
		}
		dir := filepath.Dir(f.Path)
		if below {
			dir = settings.InstancesPath
		}
		whose := "this host"
		if settings.RootName != "" {
			whose = settings.RootName
		}
		return fmt.Sprintf("its QEMU sees another directory at %s (/proc/%d/root%s) than %s, where it would be started next, so nothing can be "+
			"put back for it: mount that directory there as well, or set root, then scan again", dir, i.Process.PID, dir, whose)
	}
	return ""
}

// outside returns the directory above that of a disk of Nova's that is not in the instances
// path; empty when there is none. Only what Nova itself makes counts: a file of its names in
// a directory that is called by the instance's UUID (nova/virt/libvirt/utils.py,
// get_instance_path). Volumes may be files anywhere.
func outside(i recover.Instance, instancesPath string) string {
	if i.Definition.Nova == nil && len(i.Definition.Disks) > 0 { // no instance of Nova's
		return ""
	}
	for _, f := range i.Files {
		if f.Role != recover.RoleDisk && f.Role != recover.RoleConfigDrive {
			continue
		}
		dir, name := filepath.Dir(f.Path), filepath.Base(f.Path)
		own := filepath.Base(dir) == i.UUID || filepath.Base(dir) == i.UUID+"_resize"
		if top := filepath.Dir(dir); own && (name == "disk" || strings.HasPrefix(name, "disk.")) && top != filepath.Clean(instancesPath) {
			return top
		}
	}
	return ""
}
