package e2e

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/test/lab"
)

// TestARescuedDiskIsWhatItWasAlsoWhenItsDomainStops: its label, its attributes and its access
// control list are kept in both modes, and when the domain stops libvirt gives the disk
// to whom it gives every other. A mirror's other refcounts are said beforehand.
func TestARescuedDiskIsWhatItWasAlsoWhenItsDomainStops(t *testing.T) {
	l := lab.New(t, lab.Options{FileSystem: lab.Ext4, Size: 2 << 30, BuildFlags: withFailpoints.BuildFlags})
	v := boot(t, l, lab.Spec{NoAgent: true})
	v.Destroy(t)
	off := ownerOf(t, v.Disk)
	if out, err := exec.Command("qemu-img", "amend", "-f", "qcow2", "-o", "lazy_refcounts=on", v.Disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	v.Start(t)
	v.WaitBoot(t, 2)
	attributes := map[string][]byte{
		"user.note":               []byte("of the operator's"),
		"security.selinux":        []byte("system_u:object_r:svirt_image_t:s0:c1,c2\x00"),
		"system.posix_acl_access": recovertest.AccessList(4242),
	}
	for name, value := range attributes {
		must(t, unix.Setxattr(v.Disk, name, value, 0))
	}
	for boots, mode := range []string{"reboot", "live"} {
		l.DeleteTree(t)
		if mode == "live" {
			plan := run(t, l, 0, rescueArgs("--all", "--mode", mode, "--dry-run")...).Stdout
			if !strings.Contains(plan, "lazy refcounts") {
				t.Errorf("the plan does not say what the mirror is without:\n%s", plan)
			}
		}
		if got := of(t, rescue(t, l, 0, "--all", "--mode", mode), v); got.Outcome != recover.OutcomeRescued {
			t.Fatalf("%s: %s", mode, asJSON(t, got))
		}
		running := ownerOf(t, v.Disk)
		for name, want := range attributes {
			value := make([]byte, 1024)
			n, err := unix.Getxattr(v.Disk, name, value)
			if err != nil || !bytes.Equal(value[:n], want) {
				t.Errorf("%s: %s is %q (%v)", mode, name, value[:max(n, 0)], err)
			}
		}
		v.WaitBoot(t, 3+boots)
		v.Destroy(t)
		if got := ownerOf(t, v.Disk); got != off || running == off {
			t.Errorf("%s: it belongs to %s while it runs and to %s when it is off, and belonged to %s", mode, running, got, off)
		}
		v.Start(t)
		v.WaitBoot(t, 4+boots)
	}
}
