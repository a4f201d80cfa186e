package keeper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// of returns the keepers of a directory.
func of(t *testing.T, dir string) []Found {
	t.Helper()
	list, err := Of(t.Context(), dir)
	must(t, err)
	return list
}

// stop stops a process, and waits until it stands still.
func stop(t *testing.T, pid int) {
	t.Helper()
	must(t, unix.Kill(pid, unix.SIGSTOP))
	patience.Wait(t, "the process stands still", func() bool { return isStopped(pid) })
}

// ends waits for the end of a keeper.
func ends(t *testing.T, pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience.Limit())
	defer cancel()
	must(t, AwaitEnd(ctx, pid))
}

// endAfter ends a keeper after the test that has lost its directory.
func endAfter(t *testing.T, pid int) {
	t.Cleanup(func() {
		unix.Kill(pid, unix.SIGKILL)
		must(t, AwaitEnd(context.Background(), pid))
	})
}

func TestAKeeperWhoseDirectoryWasRemovedIsFoundAndGivesWhatItHolds(t *testing.T) {
	dir := stateDir(t)
	c := start(t, dir)
	endAfter(t, c.PID())
	f, key := deleted(t, "disk")
	must(t, c.Hold(t.Context(), "uuid", key, nil, f))
	list := of(t, dir)
	if len(list) != 1 || list[0].Apart || list[0].PID != c.PID() {
		t.Fatalf("in its directory: %+v", list)
	}
	CloseAll(list)
	must(t, os.Rename(dir, dir+".old"))
	must(t, os.RemoveAll(dir+".old"))
	if _, err := Connect(t.Context(), dir); !errors.Is(err, ErrNoKeeper) {
		t.Fatalf("a path leads to it: %v", err)
	}
	another := start(t, dir)
	list = of(t, dir)
	if len(list) != 2 || list[0].PID != another.PID() || list[0].Apart || list[1].PID != c.PID() || !list[1].Apart || list[1].Dir != dir {
		t.Fatalf("found: %+v", list)
	}
	if got := content(t, list[1].Client, key); got != "disk" {
		t.Errorf("it has %q", got)
	}
	must(t, list[1].Client.Release(t.Context(), "uuid"))
	CloseAll(list)
	must(t, c.Close())
	ends(t, c.PID()) // by itself
	if _, err := another.List(t.Context()); err != nil {
		t.Errorf("the other one, after that: %v", err)
	}
}

func TestAKeeperThatDoesNotAnswerHoldsUpNobody(t *testing.T) {
	dir := stateDir(t)
	c := start(t, dir)
	endAfter(t, c.PID())
	f, key := deleted(t, "disk")
	must(t, c.Hold(t.Context(), "uuid", key, nil, f))
	stop(t, c.PID())
	begun := time.Now()
	if _, err := c.List(t.Context()); !errors.Is(err, ErrSilent) {
		t.Errorf("it is asked, stopped: %v", err)
	}
	if _, err := Connect(t.Context(), dir); !errors.Is(err, ErrSilent) {
		t.Errorf("it is connected to, stopped: %v", err)
	}
	if list := of(t, dir); len(list) != 1 || list[0].Client != nil || list[0].PID != c.PID() {
		t.Errorf("found: %+v", list)
	}
	next := start(t, dir)
	if spent := time.Since(begun); spent > patience.Of(answerTime) { // nobody waits for a stopped one
		t.Errorf("that took %s", spent)
	}
	must(t, unix.Kill(c.PID(), unix.SIGCONT))
	list := of(t, dir)
	if len(list) != 2 || list[0].PID != next.PID() || list[1].PID != c.PID() || !list[1].Apart {
		t.Fatalf("found: %+v", list)
	}
	if got := content(t, list[1].Client, key); got != "disk" {
		t.Errorf("it has %q", got)
	}
	// At its end it leaves the other one its place.
	must(t, list[1].Client.Release(t.Context(), "uuid"))
	CloseAll(list)
	ends(t, c.PID())
	if again, err := Connect(t.Context(), dir); err != nil || again.PID() != next.PID() {
		t.Errorf("after the end of the first: %v", err)
	} else {
		again.Close()
	}
}

func TestAKeeperThatHangsLosesItsPlaceAfterSomeSeconds(t *testing.T) {
	dir := stateDir(t)
	hanging, err := openDoor(dir, socketName, lockName) // it takes connections, and answers none
	must(t, err)
	defer hanging.close()
	if _, err := Connect(t.Context(), dir); !errors.Is(err, ErrSilent) {
		t.Fatalf("it answers: %v", err)
	}
	c := start(t, dir)
	if c.PID() == os.Getpid() {
		t.Fatal("this process is the keeper")
	}
	must(t, hanging.shut())
	if again := start(t, dir); again.PID() != c.PID() {
		t.Errorf("after the end of the one that hung, process %d is the keeper, and was %d", again.PID(), c.PID())
	}
}

func TestWhoOnlyHasAKeepersSocketOpenIsNoKeeper(t *testing.T) {
	dir := stateDir(t)
	c := start(t, dir)
	// This process has the keeper's socket open.
	at, err := os.OpenFile(filepath.Join(dir, socketName), unix.O_PATH, 0)
	must(t, err)
	defer at.Close()
	all, err := find(t.Context())
	must(t, err)
	defer CloseAll(all)
	is := func(pid int) func(Found) bool { return func(f Found) bool { return f.PID == pid } }
	if slices.ContainsFunc(all, is(os.Getpid())) || !slices.ContainsFunc(all, is(c.PID())) {
		t.Errorf("the keeper is process %d, and not %d: %+v", c.PID(), os.Getpid(), all)
	}
}

// Whoever connects to a daemon of root's gives it descriptors; a keeper has its socket before them.
func TestOnlyTheFirstDescriptorsOfAProcessAreLookedAt(t *testing.T) {
	must(t, RaiseFiles())
	d, err := openDoor(stateDir(t), socketName, lockName)
	must(t, err)
	defer d.close()
	for range firstOpen {
		f, err := os.Open(os.DevNull)
		must(t, err)
		defer f.Close()
	}
	late, err := openDoor(stateDir(t), socketName, lockName)
	must(t, err)
	defer late.close()
	if list := socketsOf(os.Getpid()); len(list) != 1 || list[0].dir != d.dir.Name() {
		t.Errorf("found: %+v", list)
	}
}
