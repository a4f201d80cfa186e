package guard

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestAFileThatWasLetGoDuringAScanIsNotMissed(t *testing.T) {
	b := newIncidentBed(t)
	root, err := beneath.OpenRoot("/")
	recovertest.Must(t, err)
	defer root.Close()
	s := &fullScan{root: root, holds: b.holds, records: b.records, stale: newStaleDomains(), problems: newProblems()}
	h := b.holds.deleted()[0]
	i := b.lost
	i.PID = 0
	i.Files = slices.Clone(i.Files)
	fd := int(h.file.Fd())
	i.Files[0].State, i.Files[0].Holders = recover.FileDeleted, []recover.Holder{{PID: os.Getpid(), FD: fd}}
	freed, err := b.holds.letGo(h.inode(), "proven")
	if recovertest.Must(t, err); !freed {
		t.Fatal("it is held still")
	}
	other, err := os.Open(os.DevNull)
	recovertest.Must(t, err)
	defer other.Close()
	if int(other.Fd()) != fd { // the descriptor is another file's by now
		recovertest.Must(t, unix.Dup3(int(other.Fd()), fd, unix.O_CLOEXEC))
		defer unix.Close(fd)
	}
	unheld := map[string]error{}
	s.holdFiles(i, unheld)
	if len(unheld) != 0 || len(b.holds.deleted()) != 0 {
		t.Errorf("not held: %v; held: %v", unheld, b.holds.deleted())
	}
}

func TestTroubleThatHasPassedIsNoProblem(t *testing.T) {
	p := newProblems()
	p.set("open-ended", errors.New("c"))
	p.replace(aboutOpen, map[string]error{"/a": errors.New("a"), "/b": errors.New("b")})
	p.replace(aboutOpen, map[string]error{"/b": errors.New("b again")})
	if got := p.list(); !slices.Equal(got, []string{"c", "b again"}) {
		t.Errorf("problems: %v", got)
	}
	p.set("open-ended", nil)
	p.replace(aboutOpen, nil)
	if got := p.list(); len(got) != 0 {
		t.Errorf("problems: %v", got)
	}
}
