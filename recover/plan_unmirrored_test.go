package recover

import (
	"strings"
	"testing"
)

func TestWhatNoBlockJobReachesIsNotMirrored(t *testing.T) {
	d := Domain{Disks: []Disk{{Target: "vda", Chain: []Image{{Source: SourceFile, Path: "/i/disk", Format: "qcow2"}}}}}
	for name, c := range map[string]struct {
		file FilePlan
		says string
	}{
		"a disk":                   {FilePlan{Path: "/i/disk", Target: "vda", Format: "qcow2", Role: RoleDisk}, ""},
		"UEFI variables":           {FilePlan{Path: "/i/vars", Format: "raw", Role: RoleNVRAM}, "UEFI"},
		"a disk that was moved":    {FilePlan{Path: "/i/other", Target: "vda", Format: "qcow2", Role: RoleDisk}, "no disk of its definition"},
		"an image of a rarer kind": {FilePlan{Path: "/i/disk", Target: "vda", Format: "vmdk", Role: RoleDisk}, "vmdk"},
	} {
		if got := unmirrored(d, c.file); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
