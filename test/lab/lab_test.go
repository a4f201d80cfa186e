package lab

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func TestMain(m *testing.M) { Main(m) }

func TestGuestOutlivesTheDeletionOfItsFilesAndLosesThemWithItsQEMU(t *testing.T) {
	l := New(t, Options{})
	guest := l.Boot(t, Spec{Ephemeral: true, Swap: "raw", ConfigDrive: true})
	l.DeleteTree(t)
	guest.WaitBeat(t, guest.LastBeat()+2)

	for _, name := range []string{"disk", "disk.eph0", "disk.swap", "disk.config"} {
		if file, held := guest.OpenFiles(t)[filepath.Join(guest.Dir, name)]; !held || file.Nlink != 0 {
			t.Errorf("QEMU's %s: held %v, %+v; want it held with no link left", name, held, file)
		}
	}
	if file, held := guest.OpenFiles(t)[guest.Base]; !held || file.Nlink != 0 {
		t.Errorf("QEMU's backing file: held %v, %+v; want it held with no link left", held, file)
	}
	if _, held := guest.OpenFiles(t)[guest.ConsoleLog]; held {
		t.Error("QEMU holds the console log")
	}
	if file, held := l.LoggedFiles(t)[guest.ConsoleLog]; !held || file.Nlink != 0 {
		t.Errorf("virtlogd's console log: held %v, %+v; want it held with no link left", held, file)
	}
	guest.Verify(t)

	guest.Destroy(t)
	if _, err := virsh(t.Context(), "start", guest.Name); err == nil {
		t.Error("the domain started without its disk")
	}
}

func TestGuestTellsWhetherItLostAnything(t *testing.T) {
	l := New(t, Options{})
	guest := l.Define(t, Spec{Ephemeral: true, Swap: "qcow2", BlockDisk: true})
	guest.Start(t)
	first := guest.WaitBoot(t, 1)
	if first.Payload != "new" || first.LastBeat != 0 {
		t.Errorf("the first boot says payload %q, last beat %d", first.Payload, first.LastBeat)
	}
	if diff := cmp.Diff(map[string]string{"vdb": "new", "vdc": "new", "vdd": "new"}, first.Disks); diff != "" {
		t.Errorf("the further disks (-want +got):\n%s", diff)
	}
	asked := guest.Send(t, "write")
	guest.WaitBeat(t, 2)
	guest.WaitLine(t, asked, "write=")

	said := guest.LastBeat()
	guest.Destroy(t)
	guest.Start(t)
	second := guest.WaitBoot(t, 2)
	if second.Payload != "ok" || second.SHA256 != first.SHA256 {
		t.Errorf("after a power cut the payload is %s with sha256 %s, want ok with %s", second.Payload, second.SHA256, first.SHA256)
	}
	if diff := cmp.Diff(map[string]string{"vdb": "ok", "vdc": "ok", "vdd": "ok"}, second.Disks); diff != "" {
		t.Errorf("the further disks (-want +got):\n%s", diff)
	}
	if second.Writer != "ok" {
		t.Errorf("what the writer wrote is %q", second.Writer)
	}
	if second.LastBeat < said || second.Gaps != 0 {
		t.Errorf("beat %d was said before the power cut; on disk are %d with %d gaps", said, second.LastBeat, second.Gaps)
	}

	// What is damaged behind the guest's back shows.
	guest.PowerOff(t)
	swap := filepath.Join(guest.Dir, "disk.swap")
	if err := os.Rename(swap, swap+".old"); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(BaseDir, "swap_16")
	if err := run(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, swap); err != nil {
		t.Fatal(err)
	}
	guest.Start(t)
	if third := guest.WaitBoot(t, 3); third.Disks["vdc"] != "BAD" || third.Disks["vdb"] != "ok" {
		t.Errorf("after the loss of vdc alone the guest says %v", third.Disks)
	}
}

func TestTwoGuestsShareABackingFileAndAnswerToTheirAgents(t *testing.T) {
	l := New(t, Options{FileSystem: XFS, Size: 1 << 30})
	one := l.Define(t, Spec{})
	two := l.Define(t, Spec{NoAgent: true, NoMetadata: true, LogAppend: true})
	one.Start(t)
	two.Start(t)
	if a, b := one.WaitBoot(t, 1).SHA256, two.WaitBoot(t, 1).SHA256; a == b {
		t.Error("two guests wrote the same random payload")
	}
	if a, b := one.OpenFiles(t)[one.Base], two.OpenFiles(t)[two.Base]; a.Inode == 0 || a.Inode != b.Inode {
		t.Errorf("the backing files are %+v and %+v, want one inode", a, b)
	}

	one.WaitAgent(t)
	l.Virsh(t, "domfsfreeze", one.Name)
	const status = `{"execute":"guest-fsfreeze-status"}`
	if answer := l.Virsh(t, "qemu-agent-command", one.Name, status); !strings.Contains(answer, `"frozen"`) {
		t.Errorf("a frozen guest's agent says %s", answer)
	}
	l.Virsh(t, "domfsthaw", one.Name)
	one.WaitBeat(t, one.LastBeat()+2)
	if _, err := virsh(t.Context(), "domfsfreeze", two.Name); err == nil {
		t.Error("a guest without an agent was frozen")
	}

	// A guest ends by itself, by the power button, or goes on without libvirtd.
	two.Send(t, "poweroff")
	two.WaitGone(t)
	l.RestartLibvirtd(t)
	if state := two.State(t); state != "shut off" {
		t.Errorf("a guest that powered itself off is %s", state)
	}
	one.WaitBeat(t, one.LastBeat()+1)
	l.Virsh(t, "shutdown", "--mode", "acpi", one.Name)
	one.WaitGone(t)
}

func TestALabStartsCleanAndWithOtherOptions(t *testing.T) {
	l := New(t, Options{StdioHandler: "file"})
	entries, err := os.ReadDir(InstancesDir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if diff := cmp.Diff([]string{"_base", "locks"}, names); diff != "" {
		t.Errorf("the instances tree (-want +got):\n%s", diff)
	}
	if domains := l.Virsh(t, "list", "--all", "--name"); domains != "" {
		t.Errorf("there are domains: %s", domains)
	}

	guest := l.Define(t, Spec{RawDisk: true, Machine: "q35", ConfigDrive: true})
	block := l.Define(t, Spec{BlockOnly: true, SerialFile: true})
	guest.Start(t)
	block.Start(t)
	guest.WaitBoot(t, 1)
	block.WaitBoot(t, 1)
	if guest.Base != "" || block.Base != "" {
		t.Errorf("raw disks have backing files: %q, %q", guest.Base, block.Base)
	}
	for _, i := range []*Instance{guest, block} {
		if _, held := i.OpenFiles(t)[i.ConsoleLog]; !held {
			t.Errorf("%s: QEMU does not hold its console log", i.Name)
		}
	}
	if files := block.OpenFiles(t); len(files) != 1 {
		t.Errorf("a guest on a block device holds %v, want its console log alone", files)
	}
	log, err := os.Open(guest.ConsoleLog)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if boots := ParseConsole(log); len(boots) != 1 || !boots[0].Ready {
		t.Errorf("the console log says %+v", boots)
	}
	guest.Send(t, "reboot")
	guest.WaitBoot(t, 2)
}

func TestNewOwnersAreNovas(t *testing.T) {
	l := New(t, Options{FileSystem: Btrfs, Size: 1 << 30})
	guest := l.Define(t, Spec{})
	nova, err := ground.UserID("nova")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{InstancesDir, BaseDir, guest.Dir, guest.Disk, guest.Base, guest.ConsoleLog, guest.Dir + "/disk.info"} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; int(uid) != nova {
			t.Errorf("%s belongs to %d, want nova, %d", path, uid, nova)
		}
	}
}

// TestHoldALab is not a test: it is what TestAKilledProgramLeavesNothing kills.
func TestHoldALab(t *testing.T) {
	if os.Getenv("OS_RESCUE_LAB_HOLD") == "" {
		t.Skip("runs only inside TestAKilledProgramLeavesNothing")
	}
	l := New(t, Options{})
	l.Define(t, Spec{}).Start(t)
	var st unix.Stat_t
	if err := unix.Stat(NovaDir, &st); err != nil {
		t.Fatal(err)
	}
	backing, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/loop/backing_file", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("holding %s\n", strings.TrimSpace(string(backing)))
	select {}
}

func TestAKilledProgramLeavesNothing(t *testing.T) {
	matching := func(pattern string, ok func(string) bool) (found []string) {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			// One that vanished since does not count.
			if body, err := os.ReadFile(file); err == nil && ok(strings.TrimSpace(string(body))) {
				found = append(found, file)
			}
		}
		return found
	}
	daemons := func() []string {
		return matching("/proc/[0-9]*/comm", func(name string) bool {
			return strings.HasPrefix(name, "qemu-system") || name == "libvirtd" || name == "virtlogd"
		})
	}

	// A lab inside this program's namespaces: what is left of it can be seen.
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHoldALab$")
	cmd.Env = append(os.Environ(), stageVariable+"=", "OS_RESCUE_LAB_HOLD=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var backing string
	lines := bufio.NewScanner(out)
	for backing == "" && lines.Scan() {
		backing, _ = strings.CutPrefix(lines.Text(), "holding ")
		if backing == lines.Text() {
			backing = ""
		}
	}
	if backing == "" {
		t.Fatal("the program that was to be killed did not start a lab")
	}
	loops := func() []string {
		return matching("/sys/block/loop*/loop/backing_file", func(file string) bool { return file == backing })
	}
	if len(daemons()) != 3 || len(loops()) != 1 {
		t.Errorf("daemons %q, loop devices %q; want 3 and 1", daemons(), loops())
	}

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	err = patience.Retry(func() error {
		if left := append(daemons(), loops()...); len(left) > 0 {
			return fmt.Errorf("left over: %q", left)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
