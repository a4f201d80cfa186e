package scan

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

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
		if !f.OtherRoot || f.Role == recover.RoleOther || !below && !f.Lost() {
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
