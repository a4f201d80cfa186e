package staging

import (
	"fmt"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestASentenceNamesFewOfManyFilesAndTheDisksAmongThem(t *testing.T) {
	var files []recover.FilePlan
	for n := range 300 {
		files = append(files, recover.FilePlan{Path: fmt.Sprintf("/i/planted-%d", n), Role: recover.RoleOther})
	}
	files = append(files, recover.FilePlan{Path: "/i/disk", Role: recover.RoleDisk})
	name := func(files []recover.FilePlan) string {
		var paths []string
		for _, f := range essentialFirst(files) {
			paths = append(paths, f.Path)
		}
		return listed(paths)
	}
	if got := name(files); !strings.HasPrefix(got, "/i/disk, /i/planted-0, ") || !strings.HasSuffix(got, ", and 293 more") {
		t.Error(got)
	}
	if got := name(files[298:]); got != "/i/disk, /i/planted-298, /i/planted-299" {
		t.Error(got)
	}
}
