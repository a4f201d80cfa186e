package owners

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
)

// Table is the table of owners with its names resolved to today's numbers.
type Table struct {
	settings recover.Settings
	resolved map[recover.OwnerRule]beneath.Owner
}

// Resolve looks up every name of the settings' table in the user database below root
// (etc/passwd, etc/group), so that a missing user or group stops a run before it changes
// anything. ErrUnusable when one is missing.
func Resolve(settings recover.Settings, root *beneath.Root) (*Table, error) {
	o := &Table{settings: settings, resolved: map[recover.OwnerRule]beneath.Owner{}}
	t := settings.Owners
	rules := []recover.OwnerRule{
		t.InstancesDir,
		t.BaseDir,
		t.InstanceDir,
		t.LocksDir,
		t.Base,
		t.Disk,
		t.ConfigDrive,
		t.ConsoleLog,
		t.DiskInfo,
	}
	for _, rule := range rules {
		if _, ok := o.resolved[rule]; ok {
			continue
		}
		owner, err := root.Owner(rule.User, rule.Group, rule.Mode)
		if err != nil {
			where := ""
			if settings.RootName != "" {
				where = ", in " + settings.RootName
			}
			return nil, fmt.Errorf("%w: the configuration's table of owners%s: %w", recover.ErrUnusable, where, err)
		}
		o.resolved[rule] = owner
	}
	return o, nil
}

// File returns the owner and mode that a published file gets. A file outside the
// instances directory keeps those of its lost inode. dacLabel is the domain's DAC
// label, which OwnerTable.Auto uses for disks; it may be empty.
func (o *Table) File(f recover.FilePlan, dacLabel string) beneath.Owner {
	t := o.settings.Owners
	var rule recover.OwnerRule
	switch inside := recover.IsBelow(f.Path, o.settings.InstancesPath); {
	case f.Role == recover.RoleDiskInfo:
		return o.resolved[t.DiskInfo]
	case !inside, f.Role == recover.RoleOther:
		return beneath.Owner{UID: f.UID, GID: f.GID, Mode: fs.FileMode(f.Mode)}
	case f.Role == recover.RoleBacking:
		return o.resolved[t.Base]
	case f.Role == recover.RoleConsoleLog:
		return o.resolved[t.ConsoleLog]
	case f.Role == recover.RoleConfigDrive:
		rule = t.ConfigDrive
	default:
		rule = t.Disk
	}
	owner := o.resolved[rule]
	if uid, gid, ok := parseDACLabel(dacLabel); ok && t.Auto {
		owner.UID, owner.GID = uid, gid
	}
	return owner
}

// ComputeID returns the owner and mode of Nova's compute_id as Nova would write it.
func (o *Table) ComputeID() beneath.Owner { return o.resolved[o.settings.Owners.DiskInfo] }

// Dir returns the owner and mode that a new directory at that path gets. Far from the
// instances directory that is root, 0755.
func (o *Table) Dir(path string) beneath.Owner {
	if rule := o.rule(path); rule != (recover.OwnerRule{}) {
		return o.resolved[rule]
	}
	return beneath.Owner{Mode: 0o755}
}

// rule returns the table's rule for the directory at that path; zero far from the
// instances directory.
func (o *Table) rule(path string) recover.OwnerRule {
	t, base := o.settings.Owners, o.settings.InstancesPath
	switch {
	case path == filepath.Join(base, "_base"):
		return t.BaseDir
	case path == filepath.Join(base, "locks"):
		return t.LocksDir
	case recover.IsBelow(path, base):
		return t.InstanceDir
	case len(o.settings.ComputeIDPaths) > 0 && path == filepath.Dir(o.settings.ComputeIDPaths[0]):
		return t.InstancesDir // state_path
	case path == base || recover.IsBelow(base, path) && recover.IsBelow(path, filepath.Dir(filepath.Dir(base))):
		// The instances directory and its parent, /var/lib/nova.
		return t.InstancesDir
	}
	return recover.OwnerRule{}
}

// LockFile returns the owner and mode of Nova's lock files: Nova must be able to open
// them.
func (o *Table) LockFile() beneath.Owner {
	owner := o.resolved[o.settings.Owners.LocksDir]
	owner.Mode = 0o644
	return owner
}

// parseDACLabel reads numeric labels as libvirt writes them: "+64055:+107". ok is false
// for a label of names.
func parseDACLabel(label string) (uid, gid uint32, ok bool) {
	u, g, found := strings.Cut(label, ":")
	if !found {
		return 0, 0, false
	}
	a, err1 := strconv.ParseUint(strings.TrimPrefix(u, "+"), 10, 32)
	b, err2 := strconv.ParseUint(strings.TrimPrefix(g, "+"), 10, 32)
	return uint32(a), uint32(b), err1 == nil && err2 == nil
}
