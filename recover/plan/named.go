package plan

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
)

// notNamed says why a file of a backup is not put where its manifest says: nothing that root has
// written gives the instance a file there. Empty for one that is. A domain that is off names
// the top of each of its disks; what lies below one, a manifest of root's says.
func (p restorePlans) notNamed(i recover.Instance, entry manifest.Instance, f manifest.File) string {
	own := filepath.Join(p.Settings.InstancesPath, i.UUID)
	isIt := func(path string) bool { return path == f.Path }
	switch {
	case slices.ContainsFunc(i.Files, func(known recover.File) bool { return isIt(known.Path) }):
	case recover.IsBelow(f.Path, own):
	case f.Role == recover.RoleBacking && recover.IsBelow(f.Path, filepath.Join(p.Settings.InstancesPath, "_base")):
	case p.Options.AcceptOwner != "" && i.NoDomain:
		return fmt.Sprintf("libvirt does not know its domain, and the word of %s is not taken for what %s is to it: define the domain first "+
			"(virsh define)", p.Options.AcceptOwner, f.Path)
	case p.Options.AcceptOwner == "" && f.Role == recover.RoleBacking &&
		slices.ContainsFunc(entry.Files, func(above manifest.File) bool { return isIt(above.Backing) }):
	case p.Options.AcceptOwner == "" && i.NoDomain && f.Role != recover.RoleOther: // its definition comes from the backup too
	default:
		return fmt.Sprintf("the backup has a file for %s, which its domain does not name: it is not put there. "+
			"Where that is right, copy it by hand", f.Path)
	}
	return ""
}
