package scan

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestAFileIsPresentOnlyIfItsBirthIsThatOfTheOpenOne(t *testing.T) {
	numbered := func(n uint64, birth string) recover.Inode { return recover.Inode{Inode: n, Birth: birth} }
	for name, c := range map[string]struct {
		open, at recover.Inode
		state    recover.FileState
	}{
		"it":                                   {numbered(7, "b5"), numbered(7, "b5"), recover.FilePresent},
		"of its number, a nanosecond younger":  {numbered(7, "b5"), numbered(7, "b6"), recover.FileReplaced},
		"of its number, the next generation":   {numbered(7, "g05"), numbered(7, "g06"), recover.FileReplaced},
		"of its birth":                         {numbered(7, "b5"), numbered(8, "b5"), recover.FileReplaced},
		"it, on a file system without births":  {numbered(7, ""), numbered(7, ""), recover.FilePresent},
		"another, on one that has none either": {numbered(7, ""), numbered(8, ""), recover.FileReplaced},
	} {
		link, links := classDisk, uint64(1)
		if c.state != recover.FilePresent {
			link, links = classDisk+" (deleted)", 0
		}
		h := held(link, c.open.Inode, links)
		h.Stat.Birth = c.open.Birth
		c.at.Device = h.Stat.Dev
		disk := recover.File{Path: classDisk, Role: recover.RoleDisk, Writable: true}
		tree := fakeTree{classDisk: c.at}
		got := judged(t, false, []recover.File{disk}, []candidate{h}, tree, tree).Files[0]
		if got.State != c.state || got.Identity() != h.Inode() {
			t.Errorf("%s: %s, %v", name, got.State, got.Identity())
		}
	}
}
