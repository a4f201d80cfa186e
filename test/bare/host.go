package bare

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// StateDir is os-rescue's.
const StateDir = "/var/lib/os-rescue"

// MakeSocketDir makes SocketDir, where every QEMU can make sockets.
func MakeSocketDir() error {
	return errors.Join(os.MkdirAll(SocketDir, 0o777), os.Chmod(SocketDir, 0o777))
}

// Wipe ends everything that a trial has left behind: the domains, every process of the
// binary os-rescue, what is mounted in Nova's directory, and all files.
func Wipe(t patience.T, connection *libvirt.Connect, binary string) error {
	domains, err := connection.ListAllDomains(0)
	if err != nil {
		return err
	}
	for _, d := range domains {
		_ = d.Destroy() // it may be off
		_ = d.Undefine()
	}
	// Guard and keeper.
	for pid, program := range Processes() {
		if program == filepath.Base(binary) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			patience.Wait(t, fmt.Sprintf("the end of process %d", pid), func() bool { return syscall.Kill(pid, 0) != nil })
		}
	}
	if err := unmountBelow(lab.NovaDir); err != nil {
		return err
	}
	for _, dir := range []string{lab.NovaDir, StateDir, "/var/log/libvirt/qemu"} {
		if err := ground.EmptyDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return makeTree()
}

// makeTree makes the directories that Nova makes.
func makeTree() error {
	for _, dir := range []string{lab.InstancesDir, lab.BaseDir, lab.InstancesDir + "/locks"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := Chown(dir); err != nil {
			return err
		}
	}
	return nil
}

// unmountBelow unmounts what is mounted below a directory, the last first.
func unmountBelow(dir string) error {
	for {
		last, err := LastMount(dir)
		if err != nil || last == "" {
			return err
		}
		if err := unix.Unmount(last, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", last, err)
		}
	}
}

// LastMount returns what was mounted last below a directory; empty when nothing is.
func LastMount(dir string) (string, error) {
	body, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	last := ""
	for line := range strings.Lines(string(body)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			last = fields[1]
		}
	}
	return last, nil
}

// Chown gives paths to Nova.
func Chown(paths ...string) error {
	uid, err := ground.UserID("nova")
	if err != nil {
		return err
	}
	gid, err := ground.GroupID("nova")
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := os.Lchown(path, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// QemuImg runs qemu-img.
func QemuImg(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "qemu-img", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Processes returns the pids of every process but this one, with what the kernel says
// of its program: the base name of /proc/PID/exe.
func Processes() map[int]string {
	found := map[int]string{}
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is right
	for _, link := range links {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		program, err := os.Readlink(link)
		if err != nil {
			continue // it has ended
		}
		found[pid] = filepath.Base(strings.TrimSuffix(program, " (deleted)"))
	}
	return found
}
