package guard

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestTheInstanceOfADirectory(t *testing.T) {
	for name, want := range map[string]string{
		"0b8b7d5e-3a51-4a1c-a0b5-000000000001":        "0b8b7d5e-3a51-4a1c-a0b5-000000000001",
		"0B8B7D5E-3A51-4A1C-A0B5-000000000001_resize": "0b8b7d5e-3a51-4a1c-a0b5-000000000001",
		"0b8b7d5e-3a51-4a1c-a0b5-000000000001_del":    "0b8b7d5e-3a51-4a1c-a0b5-000000000001",
		"_base": "", "locks": "", "snapshots": "", ".os-rescue-x": "", "0b8b7d5e3a514a1ca0b5000000000001": "", "": "",
	} {
		if got := ownerOfDir(name); got != want {
			t.Errorf("%s is of %q, want %q", name, got, want)
		}
	}
}

func TestAWalkLooksAtSoManyNamesAndNoMore(t *testing.T) {
	path := t.TempDir()
	for n := range 5 {
		recovertest.Must(t, os.WriteFile(filepath.Join(path, strconv.Itoa(n)), nil, 0o600))
	}
	root, err := beneath.OpenRoot("/")
	recovertest.Must(t, err)
	defer root.Close()
	dir, err := root.OpenDir(path)
	recovertest.Must(t, err)
	defer dir.Close()
	passed, over := 0, 0
	w := &treeWalk{names: 14, passed: func(_ string, isOver bool) {
		passed++
		if isOver {
			over++
		}
	}}
	for n, c := range []struct{ most, want, passed, over int }{{6, 5, 0, 0}, {5, 5, 1, 1}, {5, 4, 2, 1}, {5, 0, 3, 1}} {
		names, err := w.namesOf(dir, c.most)
		if err != nil || len(names) != c.want || passed != c.passed || over != c.over {
			t.Errorf("look %d: %d names, %d passed, %d with too many, %v", n, len(names), passed, over, err)
		}
	}
}

// A walk through a tree that others have filled may take long.
func TestADeletionIsNoticedWhileAWalkGoesOn(t *testing.T) {
	dir := t.TempDir()
	g, err := New(Deps{Settings: recover.Settings{StateDir: filepath.Join(dir, "state"), InstancesPath: dir, Root: "/"}}, Options{}, nil, nil)
	recovertest.Must(t, err)
	defer g.root.Close()
	defer g.watch.Close()
	defer g.holds.close()
	path := filepath.Join(dir, "disk")
	recovertest.Must(t, os.WriteFile(path, nil, 0o600))
	f, err := os.Open(path)
	recovertest.Must(t, err)
	recovertest.Must(t, g.holds.add(f, holdMemory{Path: path, Owners: []string{recovertest.UUID(1)}, Role: recover.RoleDisk}))
	g.tree.running.Lock()
	defer g.tree.running.Unlock()
	recovertest.Must(t, os.Remove(path))
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		g.poll.look(t.Context())
	}()
	select {
	case <-looked:
	case <-time.After(10 * time.Second):
		t.Fatal("the poll waits for the walk")
	}
	if len(g.holds.deleted()) != 1 {
		t.Error("the deletion was not noticed")
	}
	select {
	case <-g.scanDue:
	default:
		t.Error("no scan is due")
	}
}
