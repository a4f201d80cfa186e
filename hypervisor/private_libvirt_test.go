package hypervisor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// insideVariable marks the process that runs in its own namespaces.
const insideVariable = "HYPERVISOR_TEST_INSIDE"

// TestMain runs the tests in a mount and a PID namespace of their own, whose end
// kills every daemon and guest.
// The shell is process 1: it reaps the QEMUs that libvirtd leaves.
func TestMain(m *testing.M) {
	// A fuzz target needs no libvirt, and each of its workers, which is this program again, would
	// mount a ground of its own over the files that it shares with the others.
	if slices.ContainsFunc(os.Args, func(arg string) bool { return strings.HasPrefix(arg, "-test.fuzz=") }) {
		os.Exit(m.Run())
	}
	if os.Getenv(insideVariable) == "" {
		args := append([]string{"-m", "-p", "-f", "--mount-proc", "--kill-child",
			"bash", "-c", `"$@"; exit $?`, "bash", "/proc/self/exe"}, os.Args[1:]...)
		self, err := os.Executable()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		args[9] = self
		cmd := exec.Command("unshare", args...)
		cmd.Env = append(os.Environ(), insideVariable+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err = cmd.Run()
		var exit *exec.ExitError
		switch {
		case err == nil:
			os.Exit(0)
		case errors.As(err, &exit):
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "these tests need root and util-linux's unshare:", err)
		os.Exit(1)
	}
	if err := ownGround(); err != nil {
		fmt.Fprintln(os.Stderr, "these tests need root and an installed libvirtd:", err)
		os.Exit(1)
	}
	for name, text := range map[string]string{
		"libvirtd.conf": "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n",
		"qemu.conf":     "cgroup_controllers = []\nuser = \"libvirt-qemu\"\ngroup = \"kvm\"\n",
		"virtlogd.conf": "",
	} {
		if err := os.WriteFile(filepath.Join("/etc/libvirt", name), []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := StartEventLoop(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// ownGround gives the tests a root file system on which libvirt has nothing yet.
func ownGround() error {
	ctx := context.Background()
	o, err := ground.Here(ctx)
	if err != nil {
		return err
	}
	o.Users = []ground.User{{Name: "libvirt-qemu", Group: "kvm"}}
	o.Groups = []string{"libvirt"}
	// Where only root may open it, whom libvirt probes QEMU as, libvirtd takes what it
	// knows of QEMU for outdated and probes anew with every call, a second each time.
	o.KVM = "kvm"
	if err := ground.Pivot(ctx, o); err != nil {
		return err
	}
	if err := os.RemoveAll("/etc/libvirt"); err != nil {
		return err
	}
	return os.Mkdir("/etc/libvirt", 0o755)
}

// daemon is one of libvirt's daemons, real.
type daemon struct {
	path, socket string
	mu           sync.Mutex
	cmd          *exec.Cmd
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = os.Remove(d.socket)
	var log bytes.Buffer
	d.cmd = exec.Command(d.path)
	d.cmd.Stderr = &log
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("starting %s (is the package installed?): %v", d.path, err)
	}
	patience.Wait(t, d.path+" to listen", func() bool {
		conn, err := net.Dial("unix", d.socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (d *daemon) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		d.cmd = nil
	}
}

func (d *daemon) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// startLibvirt gives the test a libvirtd of its own, with no domains.
func startLibvirt(t *testing.T) *daemon {
	t.Helper()
	libvirtd, _ := startDaemons(t)
	return libvirtd
}

// startDaemons is startLibvirt for a test that ends virtlogd too.
func startDaemons(t *testing.T) (libvirtd, logd *daemon) {
	t.Helper()
	for _, dir := range []string{"/etc/libvirt/qemu", "/var/lib/libvirt/qemu", "/run/libvirt"} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	logd = &daemon{path: "/usr/sbin/virtlogd", socket: "/run/libvirt/virtlogd-sock"}
	logd.start(t)
	t.Cleanup(logd.kill)
	libvirtd = &daemon{path: "/usr/sbin/libvirtd", socket: "/run/libvirt/libvirt-sock"}
	libvirtd.start(t)
	t.Cleanup(func() {
		libvirtd.kill()
		killGuests()
	})
	return libvirtd, logd
}

// killGuests ends every QEMU of this PID namespace.
func killGuests() {
	files, _ := filepath.Glob("/run/libvirt/qemu/*.pid")
	for _, name := range files {
		var pid int
		text, _ := os.ReadFile(name)
		if n, _ := fmt.Sscan(string(text), &pid); n == 1 && pid > 1 && filepath.Base(name) != "driver.pid" {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// open connects a Client whose calls watch sees before they begin.
func open(t *testing.T, watch func(call string)) (*Client, context.Context) {
	t.Helper()
	ctx := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.DebugLevel).WithContext(t.Context())
	if watch != nil {
		ctx = zerolog.New(calls(watch)).WithContext(t.Context())
	}
	c, err := Open(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, ctx
}

// calls is a log writer that reports each call's beginning.
type calls func(call string)

func (w calls) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("libvirt call begins")) {
		_, rest, _ := bytes.Cut(line, []byte(`"call":"`))
		name, _, _ := bytes.Cut(rest, []byte(`"`))
		// In a goroutine, which is all that a t.Fatal in it may end.
		done := make(chan struct{})
		go func() {
			defer close(done)
			w(string(name))
		}()
		<-done
	}
	return len(line), nil
}

// guest is what a test domain is made of.
type guest struct {
	name, uuid string
	dir        string
}

const testUUID = "5f1f33a4-8c0e-4a3b-9a8e-1d2c3b4a5f60"

// newGuest writes the images of a guest without an operating system: the boot
// sector in vda's raw base writes 4 KiB at 8 MiB of vda and of vdb, then halts.
func newGuest(t *testing.T) guest {
	t.Helper()
	g := guest{name: "instance-00000001", uuid: testUUID, dir: t.TempDir()}
	base := g.file("base")
	if err := os.WriteFile(base, bootSector(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(base, 64<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, g.file("disk"))
	if err := os.WriteFile(g.file("data"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(g.file("data"), 32<<20); err != nil {
		t.Fatal(err)
	}
	// Up to the test's own directory everything must be open to QEMU's user.
	for dir := g.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func (g guest) file(name string) string { return filepath.Join(g.dir, name) }

func (g guest) xml() string {
	return fmt.Sprintf(`<domain type='qemu'>
  <name>%s</name><uuid>%s</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='%s'/><target dev='vda' bus='virtio'/><boot order='1'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='%s'/><target dev='vdb' bus='virtio'/><boot order='2'/>
    </disk>
    <disk type='file' device='cdrom'><target dev='hda' bus='ide'/></disk>
    <serial type='pty'><log file='%s'/></serial>
    <graphics type='vnc' port='-1' passwd='sesame'/>
  </devices>
</domain>`, g.name, g.uuid, g.file("disk"), g.file("data"), g.file("console.log"))
}

// virsh runs real virsh: what it shows is not this package's opinion.
func virsh(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, "virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(bytes.TrimSpace(out))
}

// bootSector is a BIOS boot sector that writes 8 sectors at sector 0x4000 of the
// first two disks (INT 13h, function 43h) and halts.
func bootSector() []byte {
	code := []byte{0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c} // ds = ss = 0, sp = 7c00h
	for _, drive := range []byte{0x80, 0x81} {
		code = append(code, 0xbe, 0x00, 0x7d, 0xb8, 0x00, 0x43, 0xb2, drive, 0xcd, 0x13)
	}
	code = append(code, 0xf4, 0xeb, 0xfd) // hlt, for ever
	sector := make([]byte, 512)
	copy(sector, code)
	packet := sector[0x100:]
	packet[0] = 0x10
	binary.LittleEndian.PutUint16(packet[2:], 8)
	binary.LittleEndian.PutUint16(packet[4:], 0x7c00)
	binary.LittleEndian.PutUint64(packet[8:], 0x4000)
	sector[510], sector[511] = 0x55, 0xaa
	return sector
}
