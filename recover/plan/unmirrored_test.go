package plan

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestWhatNoBlockJobReachesIsNotMirrored(t *testing.T) {
	d := recover.Domain{Disks: []recover.Disk{{
		Target: "vda",
		Chain:  []recover.Image{{Source: recover.SourceFile, Path: "/i/disk", Format: "qcow2"}},
	}, {
		Target:    "vdb",
		Encrypted: true,
		Chain:     []recover.Image{{Source: recover.SourceFile, Path: "/i/luks", Format: "raw"}},
	}, {
		Target:       "vdc",
		Unmirrorable: "is copied on read",
		Chain:        []recover.Image{{Source: recover.SourceFile, Path: "/i/cor", Format: "qcow2"}},
	}}}
	for name, c := range map[string]struct {
		file recover.FilePlan
		says string
	}{
		"a disk": {
			file: recover.FilePlan{Path: "/i/disk", Target: "vda", Format: "qcow2", Role: recover.RoleDisk},
		},
		"UEFI variables": {
			file: recover.FilePlan{Path: "/i/vars", Format: "raw", Role: recover.RoleNVRAM},
			says: "UEFI",
		},
		"a disk that QEMU encrypts": {
			file: recover.FilePlan{Path: "/i/luks", Target: "vdb", Format: "raw", Role: recover.RoleDisk},
			says: "in the clear",
		},
		"a disk that QEMU would not leave": {
			file: recover.FilePlan{Path: "/i/cor", Target: "vdc", Format: "qcow2", Role: recover.RoleDisk},
			says: "copied on read: --mode reboot",
		},
		"a disk that was moved": {
			file: recover.FilePlan{Path: "/i/other", Target: "vda", Format: "qcow2", Role: recover.RoleDisk},
			says: "no disk of its definition",
		},
		"an image of a rarer kind": {
			file: recover.FilePlan{Path: "/i/disk", Target: "vda", Format: "vmdk", Role: recover.RoleDisk},
			says: "vmdk",
		},
	} {
		if got := unmirrored(d, c.file); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
