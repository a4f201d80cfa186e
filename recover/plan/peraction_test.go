package plan_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestAMediumThatIsGoneKeepsOnlyTheStartFromBeingPlanned(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	medium := filepath.Join(t.TempDir(), "cd.iso")
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) {
		d.Disks = append(d.Disks, recover.Disk{Target: "hda", Device: "cdrom", ReadOnly: true, ChainKnown: true,
			Chain: []recover.Image{{Source: recover.SourceFile, Path: medium, Format: "raw"}}})
	})
	held, err := os.Open(g.Disk)
	recovertest.Must(t, err)
	defer held.Close()
	h.Purge()
	o := recovertest.Options(g)
	o.Holders = []int{os.Getpid()}
	todo := h.Planned(g, recover.CommandRescue, o)
	if todo.Action != recover.ActionPublish || len(todo.Files) == 0 {
		t.Errorf("%s: %s", todo.Action, todo.Refusal)
	}
	if i := h.Scan(g); i.StartsElsewhere(recover.StarterLibvirt) == "" {
		t.Error("nothing says that it would not start")
	}
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Disks[1].Optional = true })
	if i := h.Scan(g); i.StartsElsewhere(recover.StarterLibvirt) != "" {
		t.Error("it would start without its drive's medium")
	}
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Disks[1].ReadOnly = false })
	if todo = h.Planned(g, recover.CommandRescue, o); todo.Action != recover.ActionRefuse || !strings.Contains(todo.Refusal, medium) {
		t.Errorf("a disk that it writes is gone: %s: %s", todo.Action, todo.Refusal)
	}
}

func TestAHolderThatMayWriteADiskMustBeStopped(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	disk, err := os.OpenFile(g.Disk, os.O_RDWR, 0)
	recovertest.Must(t, err)
	defer disk.Close()
	sleep := exec.CommandContext(t.Context(), "sleep", "1000")
	sleep.ExtraFiles = []*os.File{disk}
	recovertest.Must(t, sleep.Start())
	defer func() { _ = sleep.Wait() }()
	defer func() { _ = sleep.Process.Kill() }()
	h.Purge()
	o := recovertest.Options(g)
	o.Holders = []int{sleep.Process.Pid}
	if todo := h.Planned(g, recover.CommandRescue, o); todo.Action != recover.ActionRefuse || !strings.Contains(todo.Refusal, "kill -STOP") {
		t.Errorf("while it may write: %s: %s", todo.Action, todo.Refusal)
	}
	recovertest.Must(t, sleep.Process.Signal(unix.SIGSTOP))
	var status unix.WaitStatus
	_, err = unix.Wait4(sleep.Process.Pid, &status, unix.WUNTRACED, nil)
	recovertest.Must(t, err)
	if todo := h.Planned(g, recover.CommandRescue, o); !status.Stopped() || todo.Action != recover.ActionPublish {
		t.Errorf("when it is stopped: %s: %s", todo.Action, todo.Refusal)
	}
}

func TestThePlanSaysWhoseAHolderIs(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	disk, err := os.Open(g.Disk)
	recovertest.Must(t, err)
	defer disk.Close()
	sleep := exec.CommandContext(t.Context(), "setpriv", "--reuid=65534", "--clear-groups", "bash", "-c",
		"printf qemu-system-x86 > /proc/$$/comm; echo; read")
	sleep.ExtraFiles = []*os.File{disk}
	in, err := sleep.StdinPipe()
	recovertest.Must(t, err)
	out, err := sleep.StdoutPipe()
	recovertest.Must(t, err)
	recovertest.Must(t, sleep.Start())
	defer func() { _ = sleep.Wait() }()
	defer in.Close()
	_, err = bufio.NewReader(out).ReadString('\n')
	recovertest.Must(t, err)
	h.Purge()
	o := recovertest.Options(g)
	o.Holders = []int{sleep.Process.Pid}
	plan, err := h.Engine().DryRun(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	want := fmt.Sprintf("--holder %d is qemu-system-x86 of the user nobody (65534)", sleep.Process.Pid)
	if !strings.Contains(strings.Join(plan.Warnings, "\n"), want) {
		t.Errorf("%q is not among the warnings %q", want, plan.Warnings)
	}
}

func TestATransientDisksOverlayIsNoLossAndItsFileIsPutBack(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	overlay := g.Disk + ".TRANSIENT-instance-1"
	recovertest.Must(t, os.WriteFile(overlay, recovertest.Payload(7, 64<<10), 0o600))
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) {
		top := recover.Image{Source: recover.SourceFile, Path: overlay, Format: "raw"}
		d.Disks[0].Chain = append([]recover.Image{top}, d.Disks[0].Chain...)
		d.Disks[0].Transient, d.Disks[0].LostAtEnd = true, []string{"it is transient"}
	})
	recovertest.Must(t, h.HV.Start(t.Context(), g.UUID, false))
	recovertest.Must(t, os.Remove(overlay))
	if i := h.Scan(g); i.Verdict != recover.VerdictIntact {
		t.Errorf("without its overlay it is %s: %q", i.Verdict, i.Reasons)
	}
	recovertest.Must(t, os.Remove(g.Disk))
	todo := h.Planned(g, recover.CommandRescue, recovertest.Options(g))
	if todo.Action != recover.ActionPutBack || len(todo.Files) != 1 || todo.Files[0].Path != g.Disk {
		t.Errorf("%s %s %v", todo.Action, todo.Refusal, todo.Paths())
	}
}
