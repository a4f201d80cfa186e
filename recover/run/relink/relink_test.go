package relink

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// TestWhereNoBirthIsToldTheJournalSaysWhatHasGotItsNameBack: its guest has ended, and nobody
// has it open any more.
func TestWhereNoBirthIsToldTheJournalSaysWhatHasGotItsNameBack(t *testing.T) {
	const uuid = "u"
	for what, c := range map[string]struct {
		done, otherBoot, another bool
		want                     error
	}{
		"this run gave it the name":           {done: true},
		"this run may have given it the name": {want: recover.ErrUnproven},
		"the number is from before a boot":    {done: true, otherBoot: true, want: recover.ErrUnproven},
		"another file has taken the place":    {done: true, another: true, want: recover.ErrConflict},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "disk")
			recovertest.Must(t, os.WriteFile(path, []byte("x"), 0o600))
			st, err := identity.At(-100, path, 0) // AT_FDCWD
			recovertest.Must(t, err)
			r := recover.Relink{Path: path, Remedy: recover.RemedyLinkBack, Device: st.Dev, Inode: st.Ino}
			if c.another {
				r.Inode++
			}
			root, err := beneath.OpenRoot("/")
			recovertest.Must(t, err)
			defer root.Close()
			to, err := root.OpenDir(dir)
			recovertest.Must(t, err)
			defer to.Close()
			h := &journal.History{Relinked: map[string]bool{path: c.done}}
			run := &task.Run{Root: root, History: map[string]*journal.History{uuid: h},
				Pins: pin.NewCustody(pin.CustodyOptions{SameBoot: !c.otherBoot})}
			f := &file{Relink: r, t: task.New(run, recover.InstancePlan{UUID: uuid})}
			err = f.name()
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "move it away") != c.another {
				t.Errorf("it says: %v", err)
			}
		})
	}
}
