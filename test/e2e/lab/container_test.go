package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

// libvirt and the QEMUs are in a container, and so is /var/lib/nova. The host that os-rescue
// runs on has none of it, and not even the users.
func TestAHostWhoseLibvirtLivesInAContainerIsRescued(t *testing.T) {
	l := lab.New(t, lab.Options{})
	guests := bootAll(t, l, lab.Spec{ConfigDrive: true}, lab.Spec{LogAppend: true})
	moved, rebooted := guests[0], guests[1]
	l.Contain(t)
	for _, v := range guests {
		v.WaitBeat(t, 2)
		v.intact(t)
	}
	startGuard(t, l)
	l.RestartLibvirtd(t) // as a new container: the process that the guard found the tree by has ended
	owner := ownerOf(t, moved.Dir)
	l.DeleteTree(t)
	for uuid, i := range scan(t, l) {
		if i.Verdict != recover.VerdictRecoverable || len(i.Reasons) > 0 {
			t.Errorf("scan says %s of %s: %v", i.Verdict, uuid, i.Reasons)
		}
	}
	awaitGuard(t, l, "two incidents", incidents(2))
	says(t, run(t, l, 2, "check").Stdout, "CRITICAL", "2 recoverable")

	backups := filepath.Join(t.TempDir(), "backup")
	run(t, l, 0, "backup", "--instance", rebooted.UUID, "--to", backups, "--yes")
	if _, err := os.Stat(filepath.Join(backups, rebooted.UUID, "disk")); err != nil {
		t.Error(err)
	}
	if got := of(t, rescue(t, l, 0, "--instance", moved.UUID, "--mode", "live"), moved); got.Outcome != recover.OutcomeRescued {
		t.Fatalf("live: %s", asJSON(t, got))
	}
	moved.unharmed(t)
	moved.intact(t)
	beat := rebooted.LastBeat()
	if got := of(t, rescue(t, l, 0, "--instance", rebooted.UUID, "--mode", "reboot"), rebooted); got.Outcome != recover.OutcomeRescued {
		t.Fatalf("reboot: %s", asJSON(t, got))
	}
	rebooted.isBack(t, 1)
	rebooted.intact(t)
	rebooted.logHas(t, beat)
	if got := ownerOf(t, moved.Dir); got != owner {
		t.Errorf("%s belongs to %s, and belonged to %s", moved.Dir, got, owner)
	}
	moved.Destroy(t)
	moved.Start(t)
	moved.isBack(t, 1)
	awaitGuard(t, l, "no incident", incidents(0))
	run(t, l, 0, "check")
}

// What QEMU sees is nowhere to be seen for libvirt, which would start it: what is lost is
// said to be lost, and nothing is put where nobody would find it.
func TestNothingIsPutBackWhereOnlyQEMUSeesTheTree(t *testing.T) {
	l := lab.New(t, lab.Options{})
	v := boot(t, l, lab.Spec{})
	v.WaitBeat(t, 2)
	if err := unix.Mount("tmpfs", lab.InstancesDir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(lab.InstancesDir, 0) }()
	seen := fmt.Sprintf("/proc/%d/root", v.QemuPID())
	// Its disk is whole, but a start would not find it.
	whole := scan(t, l)[v.UUID]
	if whole.Verdict != recover.VerdictConflict {
		t.Errorf("with a whole disk that only QEMU sees, scan says %s", whole.Verdict)
	}
	says(t, strings.Join(whole.Reasons, "\n"), v.Disk, seen, "mount that directory")
	says(t, run(t, l, 2, "check").Stdout, "CRITICAL")
	if err := os.Remove(seen + v.Disk); err != nil {
		t.Fatal(err)
	}
	got := scan(t, l)[v.UUID]
	if got.Verdict != recover.VerdictConflict {
		t.Errorf("scan says %s", got.Verdict)
	}
	says(t, strings.Join(got.Reasons, "\n"), lab.InstancesDir, seen, "mount that directory")
	says(t, run(t, l, 2, "check").Stdout, "CRITICAL")
	says(t, v.refused(t, "--all").Error, seen)
}

func TestWithAWrongInstancesPathNothingIsTouched(t *testing.T) {
	l := lab.New(t, lab.Options{})
	v := boot(t, l, lab.Spec{})
	v.WaitBeat(t, 2)
	for name, path := range map[string]string{"nova.conf": lab.InstancesDir, "nova-compute.conf": "/srv/nova"} {
		if err := os.WriteFile("/etc/nova/"+name, []byte("[DEFAULT]\ninstances_path = "+path+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	words := []string{"instances_path", lab.InstancesDir, "/srv/nova", "/etc/nova/nova-compute.conf"}
	says(t, strings.Join(scan(t, l)[v.UUID].Reasons, "\n"), words...)
	l.DeleteTree(t)
	says(t, v.refused(t, "--all").Error, words...)
	if _, err := os.Stat("/srv/nova"); err == nil {
		t.Error("there is a /srv/nova now")
	}
	if err := os.Remove("/etc/nova/nova-compute.conf"); err != nil {
		t.Fatal(err)
	}
	if got := of(t, rescue(t, l, 0, "--all"), v); got.Outcome != recover.OutcomeRescued {
		t.Fatalf("with the right one: %s", asJSON(t, got))
	}
	v.isBack(t, 1)
}
