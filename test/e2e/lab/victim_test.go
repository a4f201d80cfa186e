package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// victim is a guest that accidents happen to, and how often it has booted.
type victim struct {
	*lab.Instance
	l     *lab.Lab
	boots int
}

// boot makes a guest and waits until it is up.
func boot(t *testing.T, l *lab.Lab, spec lab.Spec) *victim {
	t.Helper()
	return &victim{Instance: l.Boot(t, spec), l: l, boots: 1}
}

// bootAll makes guests that boot at the same time.
func bootAll(t *testing.T, l *lab.Lab, specs ...lab.Spec) []*victim {
	t.Helper()
	var guests []*victim
	for _, spec := range specs {
		guests = append(guests, &victim{Instance: l.Define(t, spec), l: l, boots: 1})
	}
	for _, v := range guests {
		v.Start(t)
	}
	for _, v := range guests {
		v.WaitBoot(t, 1)
	}
	return guests
}

// unharmed checks that the guest runs on, is writing to its disk, and was never
// rebooted.
func (v *victim) unharmed(t *testing.T) {
	t.Helper()
	v.WaitBeat(t, v.LastBeat()+2)
	if got := len(v.Boots()); got != v.boots {
		t.Fatalf("the guest has booted %d times, want %d", got, v.boots)
	}
}

// isBack checks that the guest has booted so often more, and has lost nothing.
func (v *victim) isBack(t *testing.T, boots int) {
	t.Helper()
	v.boots += boots
	if b := v.WaitBoot(t, v.boots); b.Payload != "ok" {
		t.Fatalf("boot %d finds the payload %s", v.boots, b.Payload)
	}
	if got := len(v.Boots()); got != v.boots {
		t.Fatalf("the guest has booted %d times, want %d", got, v.boots)
	}
}

// isBackFromABackup checks that the guest has booted since, counts that boot as
// the backup's disk has it, and has lost nothing that the backup has.
func (v *victim) isBackFromABackup(t *testing.T, heard, number int) {
	t.Helper()
	patience.Wait(t, "another boot", func() bool {
		boots := v.Boots()
		return len(boots) > heard && boots[len(boots)-1].Ready
	})
	boots := v.Boots()
	last := boots[len(boots)-1]
	if len(boots) != heard+1 || last.Number != number || last.Payload != "ok" || last.Gaps != 0 || last.Disks["vdb"] != "ok" {
		t.Errorf("after %d boots came %d more, the last is number %d with %+v", heard, len(boots)-heard, last.Number, last)
	}
}

// intact checks what scan says, and that no run left anything behind.
func (v *victim) intact(t *testing.T) {
	t.Helper()
	if got := scan(t, v.l)[v.UUID]; got.Verdict != recover.VerdictIntact {
		t.Fatalf("scan says %s: %v", got.Verdict, got.Reasons)
	}
	v.nothingStaged(t)
}

func (v *victim) nothingStaged(t *testing.T) {
	t.Helper()
	left, _ := filepath.Glob(filepath.Join(lab.InstancesDir, ".os-rescue-*"))
	more, _ := filepath.Glob(filepath.Join(lab.InstancesDir, "*", ".os-rescue-*"))
	if left = append(left, more...); len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
}

// refused runs a rescue that must skip the guest, and leave it alone.
func (v *victim) refused(t *testing.T, selectors ...string) recover.InstanceReport {
	t.Helper()
	pid := v.QemuPID()
	got := of(t, rescue(t, v.l, 1, selectors...), v)
	if got.Outcome != recover.OutcomeSkipped || got.PauseSeconds != 0 {
		t.Errorf("the run did not refuse it: %s", asJSON(t, got))
	}
	if v.QemuPID() != pid {
		t.Error("its QEMU is another one now")
	}
	v.unharmed(t)
	v.nothingStaged(t)
	return got
}

// logHas checks that the console log has the beat that the guest said before
// its rescue, and what it said after it.
func (v *victim) logHas(t *testing.T, beat int) {
	t.Helper()
	f, err := os.Open(v.ConsoleLog)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	boots := lab.ParseConsole(f)
	if len(boots) != v.boots {
		t.Fatalf("the console log has %d boots, want %d", len(boots), v.boots)
	}
	if !slices.Contains(boots[0].Beats, beat) {
		t.Errorf("beat %d, said before the suspend, is not in the console log, which has %v", beat, boots[0].Beats)
	}
}

// holdsWhatIsPublished checks that what QEMU and virtlogd have open are the
// files that stand at their paths.
func (v *victim) holdsWhatIsPublished(t *testing.T) {
	t.Helper()
	open := v.OpenFiles(t)
	if log, ok := v.l.LoggedFiles(t)[v.ConsoleLog]; ok {
		open[v.ConsoleLog] = log
	}
	for _, path := range []string{v.Disk, v.Base, v.ConsoleLog} {
		if _, ok := open[path]; !ok {
			t.Errorf("nobody holds %s", path)
		}
	}
	for path, f := range open {
		if f.Nlink == 0 || f.Inode != inodeOf(t, path) {
			t.Errorf("%s is held as %+v, which is not what stands there", path, f)
		}
	}
}

// held returns the path through which QEMU's own file can be read and written,
// deleted or not.
func (v *victim) held(t *testing.T, path string) string {
	t.Helper()
	f, ok := v.OpenFiles(t)[path]
	if !ok {
		t.Fatalf("QEMU does not hold %s", path)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", v.QemuPID(), f.FD)
}

// forget ends a guest's QEMU and has libvirt forget its domain.
func (v *victim) forget(t *testing.T) {
	t.Helper()
	v.Destroy(t)
	v.l.Virsh(t, "undefine", v.Name)
}

// again changes a guest's files while it is off, and boots it.
func (v *victim) again(t *testing.T, change func()) {
	t.Helper()
	v.Destroy(t)
	change()
	v.Start(t)
	v.boots++
	v.WaitBoot(t, v.boots)
}
