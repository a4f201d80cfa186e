package owners

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestTheTableOfOwners(t *testing.T) {
	dir := t.TempDir()
	recovertest.Must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	const users = "root:x:0:0::/:\nnova:x:100:200::/:\nlibvirt-qemu:x:64055:300::/:\nqemu:x:107:107::/:\n"
	const groups = "root:x:0:\nnova:x:200:\nkvm:x:300:\nqemu:x:107:\n"
	recovertest.Must(t, os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(users), 0o644))
	recovertest.Must(t, os.WriteFile(filepath.Join(dir, "etc/group"), []byte(groups), 0o644))
	const i = "/var/lib/nova/instances"
	uuid := recovertest.UUID(1)
	file := func(path string, role recover.Role) recover.FilePlan {
		return recover.FilePlan{Path: path, Role: role, UID: 9, GID: 8, Mode: 0o640}
	}
	disk, config := file(i+"/"+uuid+"/disk", recover.RoleDisk), file(i+"/"+uuid+"/disk.config", recover.RoleConfigDrive)
	base, console := file(i+"/_base/b", recover.RoleBacking), file(i+"/"+uuid+"/console.log", recover.RoleConsoleLog)
	info, volume := file(i+"/"+uuid+"/disk.info", recover.RoleDiskInfo), file("/var/lib/nova/mnt/h/volume-1", recover.RoleDisk)
	nvram := file("/var/lib/libvirt/qemu/nvram/x_VARS.fd", recover.RoleNVRAM)
	for name, c := range map[string]struct {
		table recover.OwnerTable
		auto  bool
		label string
		want  map[string]string
	}{
		"Debian": {
			table: recover.DebianOwners(),
			label: "+1:+2",
			want: map[string]string{
				"disk":        "64055:300 0644",
				"disk.config": "64055:300 0644",
				"b":           "100:300 0644",
				"console.log": "100:200 0660",
				"disk.info":   "100:200 0644",
				"volume-1":    "9:8 0640",
				"x_VARS.fd":   "9:8 0640",
			},
		},
		"Red Hat": {
			table: recover.RedHatOwners(),
			want: map[string]string{
				"disk":        "107:107 0644",
				"disk.config": "107:107 0644",
				"b":           "100:107 0644",
				"console.log": "100:200 0660",
				"disk.info":   "100:200 0644",
				"volume-1":    "9:8 0640",
			},
		},
		"auto takes the label": {
			table: recover.DebianOwners(),
			auto:  true,
			label: "+77:+78",
			want: map[string]string{
				"disk":        "77:78 0644",
				"disk.config": "77:78 0644",
				"b":           "100:300 0644",
				"console.log": "100:200 0660",
				"disk.info":   "100:200 0644",
				"volume-1":    "9:8 0640",
			},
		},
		"auto without a label": {table: recover.DebianOwners(), auto: true, want: map[string]string{"disk": "64055:300 0644"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := recover.DefaultSettings()
			s.Root, s.Owners = dir, c.table
			s.Owners.Auto = c.auto
			o := ownersAt(t, s)
			for _, f := range []recover.FilePlan{disk, config, base, console, info, volume, nvram} {
				want, ok := c.want[filepath.Base(f.Path)]
				if got := o.File(f, c.label).String(); ok && got != want {
					t.Errorf("%s: %s, want %s", f.Path, got, want)
				}
			}
			for path, want := range map[string]string{
				i:               "100:200 0755",
				"/var/lib/nova": "100:200 0755",
				i + "/_base":    "100:200 0755",
				i + "/" + uuid:  "100:200 0755",
				i + "/locks":    "100:200 0755",
				"/var/lib":      "0:0 0755",
				"/srv/x":        "0:0 0755",
			} {
				if got := o.Dir(path).String(); got != want {
					t.Errorf("%s: %s, want %s", path, got, want)
				}
			}
			if got := o.LockFile().String(); got != "100:200 0644" {
				t.Errorf("a lock file: %s", got)
			}
		})
	}
}

// ownersAt looks the table up.
func ownersAt(t testing.TB, s recover.Settings) *Table {
	t.Helper()
	root, err := beneath.OpenRoot(s.Root)
	recovertest.Must(t, err)
	t.Cleanup(func() { root.Close() })
	o, err := Resolve(s, root)
	recovertest.Must(t, err)
	return o
}
