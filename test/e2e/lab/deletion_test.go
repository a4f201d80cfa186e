package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/test/lab"
)

// A guard without Nova tells a deletion from an accident by what libvirt and the file system say.
func TestADeletedInstanceFreesItsRoomAndAnAccidentDoesNot(t *testing.T) {
	l := lab.New(t, withFailpoints)
	guests := bootAll(t, l, lab.Spec{}, lab.Spec{}, lab.Spec{})
	byNova, byHand, accident := guests[0], guests[1], guests[2]
	startGuard(t, l)
	dirOf := func(v *victim) string { return filepath.Dir(v.Disk) }
	gone := func(n int) func(guard.Status) bool {
		return func(s guard.Status) bool { return s.Held.DeletedFiles == 0 && s.Released[keeper.ReleasedDeleted] == n }
	}
	released := func() int { return guarded(t, l).Released[keeper.ReleasedDeleted] }

	// As nova-compute does it: destroy, rename, remove, undefine.
	begun := time.Now()
	byNova.Destroy(t)
	if err := os.Rename(dirOf(byNova), dirOf(byNova)+"_del"); err != nil {
		t.Fatal(err)
	}
	remove(t, dirOf(byNova)+"_del")
	l.Virsh(t, "undefine", byNova.Name)
	awaitGuard(t, l, "the room of one deleted by Nova", gone(2))
	t.Logf("free after %s", time.Since(begun).Round(time.Millisecond))

	begun = time.Now()
	byHand.forget(t)
	time.Sleep(100 * time.Millisecond) // a person is no faster, and an event takes its time
	remove(t, dirOf(byHand))
	awaitGuard(t, l, "the room of one deleted by hand", gone(4))
	t.Logf("free after %s", time.Since(begun).Round(time.Millisecond))

	// It is undefined, and runs: its QEMU has all that is left of it.
	l.Virsh(t, "undefine", accident.Name)
	time.Sleep(100 * time.Millisecond)
	remove(t, dirOf(accident))
	awaitGuard(t, l, "the incident", incidents(1))
	accident.Destroy(t)
	time.Sleep(7 * time.Second) // longer than settled
	if held := guarded(t, l).Held.DeletedFiles; held == 0 || released() != 4 {
		t.Errorf("%d deleted files are held, %d were let go", held, released())
	}
}
