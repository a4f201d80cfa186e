package run

import (
	"encoding/json"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/runs"
)

// What stands at a path may be the content of the file that is held now, and not that of an
// earlier one of the same path.
func TestAPinIsReleasedForTheCopyOfItsOwnFile(t *testing.T) {
	const path = "/i/_base/b"
	held := recover.Inode{Device: 1, Inode: 7, Birth: "b5"}
	for name, c := range map[string]struct {
		pinned recover.Inode
		want   bool
	}{
		"the held file":                       {held, true},
		"an earlier one":                      {recover.Inode{Device: 1, Inode: 8, Birth: "b4"}, false},
		"an earlier one of the same number":   {recover.Inode{Device: 1, Inode: 7, Birth: "b4"}, false},
		"one of the number on another device": {recover.Inode{Device: 2, Inode: 7, Birth: "b5"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			meta, err := json.Marshal(pin.Meta{Path: path, Role: recover.RoleBacking})
			recovertest.Must(t, err)
			i := recover.Instance{PID: 10, Files: []recover.File{{Path: path, Role: recover.RoleBacking, State: recover.FileReplaced, Proven: true,
				Device: held.Device, Inode: held.Inode, Birth: held.Birth}}}
			if got := inService(i, keeper.Hold{Key: c.pinned.Key(), Meta: meta}, runs.Published{}, nil); got != c.want {
				t.Errorf("released: %t", got)
			}
		})
	}
}
