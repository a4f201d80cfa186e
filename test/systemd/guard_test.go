package systemd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// stateDir is the guard's: where the unit says.
const stateDir = "/var/lib/os-rescue"

const bootID = "/proc/sys/kernel/random/boot_id"

// TestMain lets the test binary be what the guard's unit starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		var err error
		switch os.Args[1] {
		case "guard":
			err = guard()
		case "keeper":
			err = keeper.Serve(context.Background(), keeper.Options{Dir: stateDir})
		default:
			Main(m)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	Main(m)
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// task is what the stand-in of the guard is to try, in the sandbox of the unit.
type task struct {
	PID    int      // of a process of another user
	FD     int      // what it has open: a deleted file that is its user's alone
	Read   []string // files to read
	Write  []string // files to make or to write to
	Caller string   // a file whose device is told, and which the keeper is to hold
	Stat   string   // a device
}

// findings are what came of it: contents, and errors by path.
type findings struct {
	Held, Root string
	Read       map[string]string
	Write      map[string]string
	Device     uint64
	Keeper     int
	Network    string
	Stat       string
}

// guard tries its task at every SIGHUP, and starts a keeper.
func guard() error {
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	if err := tryTask(); err != nil {
		return err
	}
	ready, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	for {
		if _, err := io.WriteString(ready, "READY=1"); err != nil {
			return err
		}
		<-again
		if err := tryTask(); err != nil {
			return err
		}
	}
}

func tryTask() error {
	var todo task
	text, err := os.ReadFile(filepath.Join(stateDir, "task"))
	if err == nil {
		err = json.Unmarshal(text, &todo)
	}
	if err != nil {
		return err
	}
	found := findings{Read: map[string]string{}, Write: map[string]string{}}
	said := func(content []byte, err error) string {
		if err != nil {
			return "error: " + err.Error()
		}
		return string(content)
	}
	found.Held = said(os.ReadFile(fmt.Sprintf("/proc/%d/fd/%d", todo.PID, todo.FD)))
	found.Root = said(os.ReadFile(fmt.Sprintf("/proc/%d/root%s", todo.PID, todo.Caller)))
	for _, path := range todo.Read {
		found.Read[path] = said(os.ReadFile(path))
	}
	for _, path := range todo.Write {
		found.Write[path] = said(nil, os.WriteFile(path, []byte("written"), 0o600))
	}
	var st unix.Stat_t
	if err := unix.Stat(todo.Caller, &st); err != nil {
		return err
	}
	found.Device = st.Dev
	_, err = os.Stat(todo.Stat)
	found.Stat = said(nil, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	found.Network = said(nil, err)
	if err == nil {
		listener.Close()
	}

	f, err := os.Open(todo.Caller)
	if err != nil {
		return err
	}
	defer f.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	client, err := keeper.Start(context.Background(), keeper.Options{Dir: stateDir, Command: []string{self, "keeper"}})
	if err != nil {
		return err
	}
	defer client.Close()
	found.Keeper = client.PID()
	key, err := keeper.Key(f)
	if err == nil {
		err = client.Hold(context.Background(), "instance", key, nil, f)
	}
	if err != nil {
		return err
	}
	if text, err = json.Marshal(found); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(stateDir, "found"), text, 0o600)
}

// TestTheGuardsSandboxLetsItDoItsWork runs what the guard has to do in the sandbox
// that the unit makes.
func TestTheGuardsSandboxLetsItDoItsWork(t *testing.T) {
	tree := t.TempDir()
	for dir := tree; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		do(t, os.Chmod(dir, 0o755))
	}
	t.Cleanup(func() { _ = os.RemoveAll(stateDir) })
	later, disk, secret := tree+"/later", tree+"/disk", tree+"/secret"
	do(t, os.MkdirAll(stateDir, 0o700), os.Mkdir(later, 0o755), os.MkdirAll("/var/lib/nova", 0o755),
		os.WriteFile(disk, []byte("the disk"), 0o644), os.WriteFile(secret, []byte("a secret"), 0o600), os.Chown(secret, 65534, 65534))
	own, err := os.OpenFile(tree+"/deleted", os.O_RDWR|os.O_CREATE, 0o600)
	do(t, err)
	_, err = own.WriteString("deleted and another's")
	do(t, err, own.Chown(65534, 65534), os.Remove(own.Name()))
	defer own.Close()

	// QEMU: another user's, in a mount namespace of its own.
	qemu := exec.Command("unshare", "--mount", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "infinity")
	qemu.ExtraFiles = []*os.File{own}
	do(t, qemu.Start())
	t.Cleanup(func() { _ = qemu.Process.Kill(); _ = qemu.Wait() })

	todo := task{PID: qemu.Process.Pid, FD: 3, Caller: disk,
		Read: []string{disk, secret, later + "/new", bootID},
		Stat: "/dev/loop-control",
		Write: []string{
			stateDir + "/journal", "/var/lib/nova/file", tree + "/file", secret, "/etc/passwd", "/home/file", "/usr/file",
			"/proc/sys/kernel/hostname",
		},
	}
	text, err := json.Marshal(todo)
	do(t, err, os.WriteFile(stateDir+"/task", text, 0o600))

	unit, err := os.ReadFile(units(t) + "/os-rescue-guard.service")
	do(t, err)
	Install(t, "os-rescue-guard.service", string(unit)+"\n[Unit]\nDefaultDependencies=no\n")
	Ctl(t, "start", "os-rescue-guard.service")
	look := func() findings {
		t.Helper()
		var found findings
		text, err := os.ReadFile(stateDir + "/found")
		do(t, err, json.Unmarshal(text, &found), os.Remove(stateDir+"/found"))
		return found
	}
	found := look()
	if found.Held != "deleted and another's" || found.Root != "the disk" {
		t.Errorf("of QEMU it read %q and %q", found.Held, found.Root)
	}
	if found.Read[disk] != "the disk" || found.Read[secret] != "a secret" {
		t.Errorf("it read %q", found.Read)
	}
	if boot, _ := os.ReadFile(bootID); found.Read[bootID] != string(boot) {
		t.Errorf("the boot's id: %q", found.Read[bootID])
	}
	if _, err := os.Stat(todo.Stat); err == nil && found.Stat != "" {
		t.Errorf("a device: %s", found.Stat)
	}
	if found.Network != "" {
		t.Errorf("the network: %s", found.Network)
	}
	for path, said := range found.Write {
		if (said == "") != strings.HasPrefix(path, stateDir) {
			t.Errorf("writing to %s: %q", path, said)
		}
	}
	var st unix.Stat_t
	do(t, unix.Stat(disk, &st))
	if found.Device != st.Dev {
		t.Errorf("it sees the disk on device %d, it is on %d", found.Device, st.Dev)
	}

	// A file system that is mounted while it runs.
	do(t, unix.Mount("tmpfs", later, "tmpfs", 0, ""), os.WriteFile(later+"/new", []byte("mounted later"), 0o644))
	defer func() { _ = unix.Unmount(later, unix.MNT_DETACH) }()
	do(t, syscall.Kill(mainPID(t), syscall.SIGHUP))
	found = findings{}
	patience.Wait(t, "what it finds now", func() bool {
		text, err := os.ReadFile(stateDir + "/found")
		return err == nil && json.Unmarshal(text, &found) == nil && found.Keeper != 0
	})
	if found.Read[later+"/new"] != "mounted later" {
		t.Errorf("of what was mounted later it read %q", found.Read[later+"/new"])
	}

	// What the keeper holds lives on when the guard is stopped, and keeps nothing
	// from being unmounted.
	Ctl(t, "stop", "os-rescue-guard.service")
	do(t, unix.Unmount(later, 0))
	client, err := keeper.Connect(t.Context(), stateDir)
	do(t, err)
	defer client.Close()
	t.Cleanup(func() { _ = syscall.Kill(found.Keeper, syscall.SIGKILL) })
	if client.PID() != found.Keeper {
		t.Errorf("the keeper is process %d, it was %d", client.PID(), found.Keeper)
	}
	cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", found.Keeper))
	do(t, err)
	if !strings.Contains(string(cgroup), "0::/\n") {
		t.Errorf("the keeper is in the control group %s", cgroup)
	}
	log, err := os.ReadFile(stateDir + "/keeper.log")
	do(t, err)
	for line := range strings.Lines(string(log)) {
		// What a machine that withholds CAP_SYS_RESOURCE from its root denies to all.
		if strings.Contains(line, "can't") && !strings.Contains(line, "OOM killer") {
			t.Errorf("the keeper says %s", line)
		}
	}
	do(t, os.Remove(disk))
	holds, err := client.List(t.Context())
	do(t, err)
	if len(holds) != 1 || holds[0].Links != 0 {
		t.Fatalf("the keeper holds %+v", holds)
	}
	f, err := client.Open(t.Context(), holds[0].Key)
	do(t, err)
	defer f.Close()
	if content, err := io.ReadAll(f); err != nil || string(content) != "the disk" {
		t.Errorf("the keeper gives %q, error %v", content, err)
	}
}

func mainPID(t *testing.T) int {
	t.Helper()
	var pid int
	if _, err := fmt.Sscan(Show(t, "os-rescue-guard.service", "MainPID"), &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}
