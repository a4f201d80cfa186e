package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

// bootWithIOThread makes a guest whose first disk has a thread of its own, and waits until it
// is up.
func bootWithIOThread(t *testing.T, l *lab.Lab, spec lab.Spec) *victim {
	t.Helper()
	v := &victim{Instance: l.Define(t, spec), l: l, boots: 1}
	own := l.Virsh(t, "dumpxml", "--inactive", "--security-info", v.Name)
	own = strings.Replace(own, "<os>", "<iothreads>1</iothreads><os>", 1)
	own = strings.Replace(own, "cache='none'", "cache='none' iothread='1'", 1)
	l.Virsh(t, "define", writeTo(t, own))
	v.Start(t)
	v.WaitBoot(t, 1)
	return v
}

// The QEMU of Debian 12 ends with an assertion when it has shown a disk in an IOThread.
func TestAGuestWithAnIOThreadOutlivesItsProof(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := bootWithIOThread(t, l, lab.Spec{LogAppend: true, Ephemeral: true})
	pid := v.QemuPID()
	l.DeleteTree(t)
	var plan recover.Plan
	decode(t, run(t, l, 0, "--all", "--offline", "--mode", "live", "--dry-run", "--output", "json").Stdout, &plan)
	if todo := plan.Instances[0]; todo.Unexported != "disk vda has an IOThread" ||
		!strings.Contains(strings.Join(todo.Steps, "\n"), "not while it runs: disk vda has an IOThread") {
		t.Errorf("the plan is %s", asJSON(t, todo))
	}
	got := of(t, live(t, l, 0, "--verify", "running"), v)
	if got.Outcome != recover.OutcomeRescued || got.Verified != recover.VerifyFull ||
		!strings.Contains(strings.Join(got.Notes, "\n"), "IOThread") {
		t.Errorf("the report is %s", asJSON(t, got))
	}
	v.neverStopped(t, pid)
	v.intact(t)
	v.jobless(t)

	// crash rescues it live, and has its QEMU abort at a point of the journal.
	crash := func(t *testing.T, point string) (int, recover.InstanceReport) {
		t.Helper()
		l.DeleteTree(t)
		r := at(t, l, point, func() {
			if err := syscall.Kill(v.QemuPID(), syscall.SIGABRT); err != nil {
				t.Fatal(err)
			}
			v.WaitGone(t)
		}, rescueArgs("--all", "--mode", "live")...)
		v.isBack(t, 1)
		v.intact(t)
		return r.Code, of(t, report(t, r), v)
	}
	log := "crashed during the run: see /var/log/libvirt/qemu/" + v.Name + ".log"
	t.Run("a QEMU that crashes while its disks are mirrored", func(t *testing.T) {
		code, got := crash(t, "ready.begin")
		if code != 0 || got.Outcome != recover.OutcomeRescued || !strings.Contains(strings.Join(got.Notes, "\n"), log) {
			t.Errorf("exit code %d: %s", code, asJSON(t, got))
		}
	})
	t.Run("a QEMU that crashes after they were moved", func(t *testing.T) {
		code, got := crash(t, "continue.done")
		if code != 1 || got.Outcome != recover.OutcomeFailed {
			t.Errorf("exit code %d: %s", code, asJSON(t, got))
		}
		says(t, got.Error, "its QEMU crashed: see", "compared in full with the old ones", "held until this host goes down: "+v.Disk)
		if holds := holdings(t, l).Holds; len(holds) == 0 {
			t.Error("its old disk is not held any more")
		}
		says(t, run(t, l, 0, "resume", "--yes").Stdout, log)
		if holds := holdings(t, l).Holds; len(holds) > 0 {
			t.Errorf("still held: %+v", holds)
		}
		v.unharmed(t)
	})
}
