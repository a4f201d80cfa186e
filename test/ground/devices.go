package ground

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// device is a node of /dev.
type device struct {
	name         string
	mode         uint32
	major, minor uint32
	group        string // root's when empty
}

// loopDevices is for how many loop devices there is a node from the start. AttachLoop
// makes those of higher numbers.
const loopDevices = 64

// devices returns what a ground has in /dev (the kernel's
// Documentation/admin-guide/devices.txt).
func devices(kvm string) []device {
	all := []device{
		{"null", unix.S_IFCHR | 0o666, 1, 3, ""},
		{"zero", unix.S_IFCHR | 0o666, 1, 5, ""},
		{"full", unix.S_IFCHR | 0o666, 1, 7, ""},
		{"random", unix.S_IFCHR | 0o666, 1, 8, ""},
		{"urandom", unix.S_IFCHR | 0o666, 1, 9, ""},
		{"kmsg", unix.S_IFCHR | 0o644, 1, 11, ""},
		{"tty", unix.S_IFCHR | 0o666, 5, 0, "tty"},
		{"fuse", unix.S_IFCHR | 0o666, 10, 229, ""},
		{"net/tun", unix.S_IFCHR | 0o666, 10, 200, ""},
		{"btrfs-control", unix.S_IFCHR | 0o600, 10, 234, ""},
		{"loop-control", unix.S_IFCHR | 0o660, 10, 237, "disk"},
		{"mapper/control", unix.S_IFCHR | 0o600, 10, 236, ""},
	}
	for n := range uint32(loopDevices) {
		all = append(all, device{fmt.Sprint("loop", n), unix.S_IFBLK | 0o660, 7, n, "disk"})
	}
	var st unix.Stat_t
	if err := unix.Stat("/dev/kvm", &st); err == nil {
		mode := uint32(unix.S_IFCHR | 0o660)
		if kvm == "" {
			mode = unix.S_IFCHR | 0o600
		}
		all = append(all, device{"kvm", mode, unix.Major(st.Rdev), unix.Minor(st.Rdev), kvm})
	}
	return all
}

// makeDevices makes /dev.
func makeDevices(kvm string) error {
	dev := inside("/dev")
	if err := mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755"); err != nil {
		return err
	}
	for _, d := range devices(kvm) {
		if err := d.make(dev); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx", "core": "/proc/kcore",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"pts", "shm", "mqueue", "hugepages"} {
		if err := os.Mkdir(filepath.Join(dev, name), 0o755); err != nil {
			return err
		}
	}
	tty, err := groupID(inside("/etc"), "tty")
	if err != nil {
		return err
	}
	terminals := fmt.Sprintf("newinstance,ptmxmode=0666,mode=0620,gid=%d", tty)
	if err := mount("devpts", filepath.Join(dev, "pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, terminals); err != nil {
		return err
	}
	return mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
}

func (d device) make(dev string) error {
	path := filepath.Join(dev, d.name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	err := unix.Mknod(path, d.mode, int(unix.Mkdev(d.major, d.minor)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the device %s: %w", d.name, err)
	}
	gid := 0
	if d.group != "" {
		if gid, err = groupID(inside("/etc"), d.group); err != nil {
			return err
		}
	}
	// The umask took some of the mode.
	return errors.Join(os.Chown(path, 0, gid), unix.Chmod(path, d.mode&0o7777))
}
