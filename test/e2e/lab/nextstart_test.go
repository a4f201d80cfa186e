package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// A backup tool has left an external snapshot, and the persistent definition names the
// file below it, as Nova's own always does.
func TestAGuestOnAnOverlayIsNeverBroughtBackOnWhatLiesBelow(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{NoAgent: true})
	below := writeTo(t, l.Virsh(t, "dumpxml", "--inactive", "--security-info", v.Name))
	overlay := filepath.Join(v.Dir, "disk.bak-1")
	l.Virsh(t, "snapshot-create-as", v.Name, "bak", "--disk-only", "--atomic", "--no-metadata",
		"--diskspec", "vda,snapshot=external,file="+overlay)
	says(t, strings.Join(scan(t, l)[v.UUID].Reasons, "; "), "Nova", overlay, v.Disk) // libvirt's own definition has followed
	v.WaitLine(t, v.Send(t, "fill"), "fill payload=new")                             // in the overlay only
	l.Virsh(t, "define", below)

	whole := scan(t, l)[v.UUID]
	if whole.Verdict != recover.VerdictConflict || !whole.IsWhole() {
		t.Errorf("with all its files it is %s", asJSON(t, whole))
	}
	says(t, strings.Join(whole.Reasons, "; "), "libvirt or Nova", overlay, v.Disk)
	says(t, v.refused(t, "--all").Error, "in place", overlay, v.Disk, "blockcommit")
	says(t, run(t, l, 2, "check").Stdout, "1 of 1 instance has other files open than a start would give them")

	l.DeleteTree(t)
	plan := run(t, l, 0, "--all", "--offline", "--dry-run", "--output", "json").Stdout
	var planned recover.Plan
	must(t, json.Unmarshal([]byte(plan), &planned))
	if p := planned.Instances[0]; p.Action != recover.ActionRefuse {
		t.Errorf("the plan is %s", asJSON(t, p))
	}
	says(t, planned.Instances[0].Refusal, overlay, v.Disk, "--mode live")
	says(t, v.refused(t, "--all", "--mode", "reboot").Error, overlay, v.Disk, "--mode live", "blockcommit")

	pid := v.QemuPID()
	got := of(t, live(t, l, 0), v)
	says(t, strings.Join(got.Notes, "; "), "do not stop or reboot", overlay, v.Disk, "blockcommit")
	v.neverStopped(t, pid)
	if after := scan(t, l)[v.UUID]; after.Verdict != recover.VerdictConflict || !after.IsWhole() {
		t.Errorf("after its live rescue it is %s", asJSON(t, after))
	}

	// The cure that was named, and then the end that would have cost it its data.
	l.Virsh(t, "blockcommit", v.Name, "vda", "--base", v.Disk, "--active", "--pivot", "--wait")
	v.intact(t)
	v.Verify(t)
	v.Destroy(t)
	remove(t, overlay)
	v.Start(t)
	v.isBack(t, 1)
	v.Verify(t)
	v.intact(t)
}

// The same for other ways in which a definition and a guest part, with nothing lost and
// with everything lost.
func TestWhatIsOpenIsHeldAgainstTheNextStartInEveryWayTheyPart(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{NoAgent: true, ConfigDrive: true})
	own := writeTo(t, l.Virsh(t, "dumpxml", "--inactive", "--security-info", v.Name))
	restored := func(t *testing.T) {
		t.Helper()
		l.Virsh(t, "define", own)
		v.intact(t)
	}
	data := "/var/tmp/data-" + v.Name
	must(t, os.WriteFile(data, make([]byte, 1<<20), 0o644))

	t.Run("a disk that is attached to the running guest only", func(t *testing.T) {
		l.Virsh(t, "attach-disk", v.Name, data, "vdz", "--targetbus", "virtio", "--subdriver", "raw", "--live")
		got := scan(t, l)[v.UUID]
		says(t, strings.Join(got.Reasons, "; "), "vdz", data, "would not give it that disk")
		if got.Verdict != recover.VerdictConflict {
			t.Errorf("it is %s", got.Verdict)
		}
		l.Virsh(t, "attach-disk", v.Name, data, "vdz", "--targetbus", "virtio", "--subdriver", "raw", "--config")
		v.intact(t)
	})
	t.Run("a disk that is detached from the running guest only", func(t *testing.T) {
		l.Virsh(t, "detach-disk", v.Name, "vdz", "--live")
		patience.Wait(t, "the guest to let it go", func() bool { return !strings.Contains(l.Virsh(t, "domblklist", v.Name), data) })
		v.intact(t) // a start would find it
		remove(t, data)
		got := scan(t, l)[v.UUID]
		says(t, strings.Join(append(got.Reasons, got.Possible...), "; "), data, "detach-disk", "--config")
		if got.Verdict != recover.VerdictConflict {
			t.Errorf("a start would fail, and it is %s", got.Verdict)
		}
		restored(t)
	})
	t.Run("another file", func(t *testing.T) {
		other := filepath.Join(v.Dir, "other")
		l.Virsh(t, "define", writeTo(t, strings.ReplaceAll(read(t, own), v.Disk+"'", other+"'")))
		got := scan(t, l)[v.UUID]
		says(t, strings.Join(got.Reasons, "; "), v.Disk, other)
		if got.Verdict != recover.VerdictConflict {
			t.Errorf("it is %s", got.Verdict)
		}
		restored(t)
	})
	t.Run("the same file by another name", func(t *testing.T) {
		link := "/var/lib/nova/link"
		must(t, os.Symlink(lab.InstancesDir, link))
		l.Virsh(t, "define", writeTo(t, strings.ReplaceAll(read(t, own), lab.InstancesDir+"/"+v.UUID+"/disk'", link+"/"+v.UUID+"/disk'")))
		v.intact(t)
		l.Virsh(t, "define", own)
	})
	t.Run("another format, found when everything is lost", func(t *testing.T) {
		l.Virsh(t, "define", writeTo(t, strings.Replace(read(t, own), "type='qcow2'", "type='raw'", 1)))
		l.DeleteTree(t)
		says(t, v.refused(t, "--all").Error, v.Disk, "raw", "virsh edit")
		l.Virsh(t, "define", own)
		if got := of(t, rescue(t, l, 0, "--all"), v); got.Outcome != recover.OutcomeRescued {
			t.Errorf("%s", asJSON(t, got))
		}
		v.isBack(t, 1)
	})
}

// libvirt starts a guest whose memory is saved by the definition that was saved with it.
func TestAGuestWhoseMemoryIsSavedIsJudgedByWhatItWasSavedWith(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{NoAgent: true})
	own := l.Virsh(t, "dumpxml", "--inactive", "--security-info", v.Name)
	l.Virsh(t, "managedsave", v.Name)
	if got := scan(t, l)[v.UUID]; got.Verdict != recover.VerdictIntact || len(got.NextStart) > 0 {
		t.Errorf("with its memory saved it is %s", asJSON(t, got))
	}

	// Somebody gives its disk another name, in its definition too.
	moved := filepath.Join(v.Dir, "disk.moved")
	must(t, os.Rename(v.Disk, moved))
	l.Virsh(t, "define", writeTo(t, strings.ReplaceAll(own, v.Disk+"'", moved+"'")))
	got := scan(t, l)[v.UUID]
	if got.Verdict != recover.VerdictConflict {
		t.Errorf("its start would fail, and it is %s", got.Verdict)
	}
	says(t, strings.Join(append(got.Reasons, got.Possible...), "; "), v.Disk, moved, "would fail", "managedsave-edit", "managedsave-remove")
	if out, err := lookVirsh(t, "start", v.Name); err == nil {
		t.Errorf("it was started all the same: %s", out)
	}
	says(t, run(t, l, 2, "check").Stdout, "a start would give")

	// There is another file by the old name: it would be started on that.
	must(t, os.WriteFile(v.Disk, nil, 0o600))
	got = scan(t, l)[v.UUID]
	if got.Verdict != recover.VerdictConflict || !strings.Contains(strings.Join(got.Reasons, "; "), "would open that") {
		t.Errorf("it would be started on another file, and is %s", asJSON(t, got))
	}
	remove(t, v.Disk)

	// The cure that was named.
	tool(t, "env", "EDITOR=sed -i s,"+v.Disk+"',"+moved+"',", "virsh", "managedsave-edit", v.Name)
	if got := scan(t, l)[v.UUID]; got.Verdict != recover.VerdictIntact {
		t.Errorf("after its cure it is %s", asJSON(t, got))
	}
	v.Start(t)
	v.WaitBeat(t, 2)
}

// writeTo writes a file, and returns its path.
func writeTo(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "domain.xml")
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data)
}
