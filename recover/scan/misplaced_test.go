package scan

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestOnlyNovasOwnDisksTellThatInstancesPathIsWrong(t *testing.T) {
	const uuid, other = "6f0c1f4e-3d53-4c9c-8a83-0d5b0c1f9a11", "7f0c1f4e-3d53-4c9c-8a83-0d5b0c1f9a11"
	nova := &recover.NovaMetadata{Name: "web"}
	for what, c := range map[string]struct {
		path string
		role recover.Role
		nova *recover.NovaMetadata
		want string
	}{
		"in the instances path":          {"/var/lib/nova/instances/" + uuid + "/disk", recover.RoleDisk, nova, ""},
		"elsewhere":                      {"/srv/nova/" + uuid + "/disk", recover.RoleDisk, nova, "/srv/nova"},
		"elsewhere, ephemeral":           {"/srv/nova/" + uuid + "/disk.eph0", recover.RoleDisk, nova, "/srv/nova"},
		"elsewhere, a config drive":      {"/srv/nova/" + uuid + "/disk.config", recover.RoleConfigDrive, nova, "/srv/nova"},
		"elsewhere, in a resize":         {"/srv/nova/" + uuid + "_resize/disk", recover.RoleDisk, nova, "/srv/nova"},
		"below the instances path":       {"/var/lib/nova/instances/x/" + uuid + "/disk", recover.RoleDisk, nova, "/var/lib/nova/instances/x"},
		"a volume of Cinder's on NFS":    {"/var/lib/nova/mnt/0123/volume-" + other, recover.RoleDisk, nova, ""},
		"another's directory":            {"/srv/nova/" + other + "/disk", recover.RoleDisk, nova, ""},
		"not one of Nova's names":        {"/srv/nova/" + uuid + "/data.img", recover.RoleDisk, nova, ""},
		"a log":                          {"/srv/nova/" + uuid + "/console.log", recover.RoleConsoleLog, nova, ""},
		"elsewhere, and not Nova's":      {"/srv/nova/" + uuid + "/disk", recover.RoleDisk, nil, ""},
		"a cached image somewhere else":  {"/srv/nova/_base/0123", recover.RoleBacking, nova, ""},
		"a disk in the root's directory": {"/" + uuid + "/disk", recover.RoleDisk, nova, "/"},
	} {
		t.Run(what, func(t *testing.T) {
			i := recover.Instance{UUID: uuid, Files: []recover.File{{Path: c.path, Role: c.role}}}
			i.Definition = recover.Domain{UUID: uuid, Nova: c.nova, Disks: []recover.Disk{{Target: "vda"}}}
			if got := outside(i, "/var/lib/nova/instances"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			settings := recover.Settings{InstancesPath: "/var/lib/nova/instances", InstancesPathFrom: "the file of Nova"}
			said := misplaced(i, settings)
			if c.want == "" && said != "" {
				t.Errorf("it is said to be misplaced: %s", said)
			}
			for _, word := range []string{"instances_path", c.want, "/var/lib/nova/instances", "the file of Nova"} {
				if c.want != "" && !strings.Contains(said, word) {
					t.Errorf("%q does not say %q", said, word)
				}
			}
		})
	}
}

func TestWhereQEMUSeesAnotherDirectoryNothingIsPutBack(t *testing.T) {
	settings := recover.Settings{InstancesPath: "/i"}
	for what, c := range map[string]struct {
		file recover.File
		want bool
	}{
		"the same directory":                  {recover.File{Path: "/i/u/disk", State: recover.FileDeleted}, false},
		"another directory":                   {recover.File{Path: "/i/u/disk", State: recover.FilePresent, OtherRoot: true}, true},
		"a lost file somewhere else":          {recover.File{Path: "/v/disk", State: recover.FileDeleted, OtherRoot: true}, true},
		"a whole file in QEMU's own /dev/shm": {recover.File{Path: "/dev/shm/disk", State: recover.FilePresent, OtherRoot: true}, false},
	} {
		i := recover.Instance{Files: []recover.File{c.file}, Process: recover.ProcessIdentity{PID: 42}}
		if got := misplaced(i, settings); (got != "") != c.want || c.want && !strings.Contains(got, "/proc/42/root") {
			t.Errorf("%s: %q", what, got)
		}
	}
}

// TestWhatOnlyQEMUSeesIsNothingThatTheNextStartFinds: the paths of a guest that lives on in
// the mounts of a container that was made anew.
func TestWhatOnlyQEMUSeesIsNothingThatTheNextStartFinds(t *testing.T) {
	open, other := recover.Inode{Device: 1, Inode: 7, Birth: "b7"}, recover.Inode{Device: 1, Inode: 8, Birth: "b8"}
	for what, c := range map[string]struct {
		path   string // classDisk if empty
		role   recover.Role
		state  recover.FileState
		home   fakeTree // libvirt's root
		named  string   // whose root that is
		unseen bool
	}{
		"nothing is there":                       {home: fakeTree{}, unseen: true},
		"another file is there":                  {home: fakeTree{classDisk: other}, unseen: true},
		"it is there, in a directory of its own": {home: fakeTree{classDisk: open}},
		"it is lost, which says it all":          {home: fakeTree{}, state: recover.FileDeleted},
		"libvirt makes a log anew":               {home: fakeTree{}, role: recover.RoleConsoleLog},
		"disk.info can be made anew":             {home: fakeTree{}, role: recover.RoleDiskInfo},
		"a variable store where libvirt's root is known": {path: "/v/nvram", role: recover.RoleNVRAM, home: fakeTree{}, named: "libvirtd's",
			unseen: true},
		"a variable store where it is not":               {path: "/v/nvram", role: recover.RoleNVRAM, home: fakeTree{}},
		"a device that libvirt put into QEMU's own /dev": {path: "/dev/disk", home: fakeTree{"/dev/disk": open}, named: "libvirtd's"},
	} {
		t.Run(what, func(t *testing.T) {
			f := recover.File{Path: c.path, Role: c.role, State: recover.FilePresent, OtherRoot: true}
			f.Device, f.Inode, f.Birth = open.Device, open.Inode, open.Birth
			if f.Path == "" {
				f.Path = classDisk
			}
			if f.Role == "" {
				f.Role = recover.RoleDisk
			}
			if c.state != "" {
				f.State = c.state
			}
			settings := recover.Settings{InstancesPath: "/i", RootName: c.named}
			later := startRoot{settings: settings, home: c.home, tree: fakeTree{f.Path: open}}
			got, err := later.misses(f)
			if err != nil || got != c.unseen {
				t.Errorf("it is missed: %v, %v", got, err)
			}
			f.Unseen = got
			i := recover.Instance{Files: []recover.File{f}, Process: recover.ProcessIdentity{PID: 42}}
			if said := misplaced(i, settings); got && !strings.Contains(said, "/proc/42/root") {
				t.Errorf("it is said: %q", said)
			}
		})
	}
}

func TestTheNextStartLooksWhereLibvirtIs(t *testing.T) {
	disk, data := nextDir+"/disk", "/i/data"
	i := recover.Instance{UUID: nextUUID, Process: recover.ProcessIdentity{PID: 10}, Definition: recover.Domain{
		UUID: nextUUID, Disks: []recover.Disk{diskOn("vda", disk)},
		Next: &recover.Definition{Disks: []recover.Disk{diskOn("vda", disk), diskOn("vdb", data)}},
	}}
	old := linkedTree{fakeTree: fakeTree{data: {Inode: 3}}}
	later := startRoot{settings: recover.Settings{InstancesPath: "/i"}, home: linkedTree{}, tree: old}
	if got := nextStart(i, "/i", later); len(got) != 1 || got[0].Next != data {
		t.Errorf("it finds everything in the old mounts: %+v", got)
	}
	later.home, later.tree = later.tree, later.home
	if got := nextStart(i, "/i", later); len(got) != 0 {
		t.Errorf("what is there for libvirt is missing: %+v", got)
	}
}
