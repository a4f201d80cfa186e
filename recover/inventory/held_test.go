package inventory_test

import (
	"os"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestWhatTheGuardNotedIsReadWithoutIt(t *testing.T) {
	state := t.TempDir()
	dir := inventory.In(state)
	if notes, err := dir.Notes("b1"); len(notes) > 0 || err != nil {
		t.Errorf("no guard ever ran: %v, %v", notes, err)
	}
	recovertest.Must(t, dir.Create())
	write := func(text string) { recovertest.Must(t, os.WriteFile(dir.File("holds.json"), []byte(text), 0o600)) }
	write(`{"boot_id":"b1","host":"n","holds":[{"device":1,"inode":2,"birth":"3","path":"/i/disk","owners":["u"],"role":"disk",` +
		`"since":"2026-01-02T03:04:05Z","deleted":"2026-01-02T03:04:05Z","needed":true}]}`)
	notes, err := dir.Notes("b1")
	recovertest.Must(t, err)
	want := recover.Inode{Device: 1, Inode: 2, Birth: "3"}
	if len(notes) != 1 || notes[0].Identity() != want || !notes[0].IsLostBy("u") || notes[0].IsLostBy("v") {
		t.Errorf("%+v", notes)
	}
	if notes, err := dir.Notes("b2"); len(notes) > 0 || err != nil {
		t.Errorf("of another boot: %v, %v", notes, err)
	}
	write(`{"boot`)
	if _, err := dir.Notes("b1"); err == nil {
		t.Error("half a file is no error")
	}
}

func TestWhatAnInstanceMayNeedIsLost(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		note inventory.Note
		want bool
	}{
		"a disk with a name":            {inventory.Note{Role: recover.RoleDisk, Needed: true}, false},
		"a disk":                        {inventory.Note{Role: recover.RoleDisk, Deleted: now}, true},
		"a disk that was rebuilt":       {inventory.Note{Role: recover.RoleDisk, Deleted: now, Retired: []string{"u"}}, false},
		"one that is needed":            {inventory.Note{Role: recover.RoleDisk, Deleted: now, Needed: true, Retired: []string{"u"}}, true},
		"an old cached image":           {inventory.Note{Role: recover.RoleBacking, Deleted: now}, false},
		"a cached image that is gone":   {inventory.Note{Role: recover.RoleBacking, Deleted: now, Needed: true}, true},
		"a log, which is no one's need": {inventory.Note{Role: recover.RoleConsoleLog, Deleted: now, Needed: true}, false},
	} {
		c.note.Owners = []string{"u"}
		if got := c.note.IsLostBy("u"); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
