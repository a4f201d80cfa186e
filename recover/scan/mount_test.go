package scan

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

// TestNoMoveIsNamedThatWouldCopy: between two mounts mv copies, and QEMU goes on with the
// old file.
func TestNoMoveIsNamedThatWouldCopy(t *testing.T) {
	for name, c := range map[string]struct {
		found string
		dir   string // the nearest directory above its path
		says  string
	}{
		"its directory went with the mount":   {"/i.old/u/disk", "/i", "`mkdir -p /i/u && mount --bind /i.old/u /i/u`"},
		"and there is a new one in its place": {"/i.old/u/disk", classDir, "which hides what is in it"},
		"it has another name there":           {"/m/x", classDir, "the mount of /i/u (`find -xdev -inum 7`)"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := fakeTree{
				c.found: {Device: 1, Inode: 7}, c.found + " is on a mount of its own": {Inode: 1}, c.dir: {Device: 1, Inode: 2},
			}
			disk := recover.File{Path: classDisk, Role: recover.RoleDisk}
			i := judged(t, false, []recover.File{disk}, []candidate{held(c.found, 7, 1)}, tree, nil)
			f := i.Files[0]
			said := strings.Contains(f.Reason, c.says) && !strings.Contains(f.Reason, "`mv")
			if f.State != recover.FileDisplaced || f.Remedy != recover.RemedyMount || !said {
				t.Errorf("%s, %s: %s", f.State, f.Remedy, f.Reason)
			}
		})
	}
}
