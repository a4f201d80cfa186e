package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// scratchDir is a real file system for everybody's temporary files inside.
const scratchDir = "/var/tmp"

// labDir holds the lab's own files inside: sockets, the built binary.
const labDir = "/run/os-rescue-lab"

// diskDir is the machine's own directory for temporary files, which is on a
// disk: /var/tmp, or what OS_RESCUE_LAB_DISK names.
const diskDir = labDir + "/disk"

// FileSystem names what the instances live on.
type FileSystem string

// The file systems a lab can give to /var/lib/nova. All are loop-mounted files
// on the machine's disk, so O_DIRECT works as on a real one.
const (
	Ext4  FileSystem = "ext4"
	XFS   FileSystem = "xfs" // with reflink
	Btrfs FileSystem = "btrfs"
)

// users and groups that must exist inside; their ids are Debian's
// (base-passwd's list of globally allocated uids, and libvirt's postinst).
var (
	labUsers = []string{
		"nova:x:64060:64060:OpenStack Nova:/var/lib/nova:/bin/sh",
		"libvirt-qemu:x:64055:107:Libvirt Qemu:/var/lib/libvirt:/usr/sbin/nologin",
	}
	labGroups = []string{"nova:x:64060:", "kvm:x:107:", "libvirt-qemu:x:64055:", "libvirt:x:110:"}
)

// prepareMounts makes the new mount namespace a machine of its own.
func prepareMounts(ctx context.Context) error {
	// Nothing that is mounted here may show outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	// The machine's /run goes away with its D-Bus, systemd and libvirt, which
	// libvirtd would talk to.
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	if err := os.MkdirAll(diskDir, 0o755); err != nil {
		return err
	}
	disk := os.Getenv("OS_RESCUE_LAB_DISK")
	if disk == "" {
		disk = "/var/tmp"
	}
	if err := mount(disk, diskDir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	// /sys/fs/cgroup too: guests get no control groups.
	if err := unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("hide the machine's control groups: %w", err)
	}
	if err := mountImage(ctx, Ext4, 64<<30, scratchDir); err != nil {
		return err
	}
	if err := os.Chmod(scratchDir, 0o1777); err != nil {
		return err
	}
	if err := addLines("/etc/passwd", labUsers); err != nil {
		return err
	}
	return addLines("/etc/group", slices.Concat(labGroups, kvmGroup()))
}

// kvmGroup lets the guests' user open /dev/kvm where that is there. Where only
// the QEMU may that libvirt probes, libvirtd takes what it knows of QEMU for
// outdated and probes anew with every call, a second each time. No guest uses it.
func kvmGroup() []string {
	var st unix.Stat_t
	const kvm = 107 // labUsers: his own group
	if err := unix.Stat("/dev/kvm", &st); err != nil || st.Gid == kvm {
		return nil
	}
	return []string{fmt.Sprintf("guests-kvm:x:%d:libvirt-qemu", st.Gid)}
}

// addLines gives the namespace its own copy of an account file, with those of
// lines whose name it lacks.
func addLines(path string, lines []string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := strings.TrimSuffix(string(old), "\n") + "\n"
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ":")
		if !strings.Contains("\n"+text, "\n"+name+":") {
			text += line + "\n"
		}
	}
	copied := filepath.Join(labDir, filepath.Base(path))
	if err := os.WriteFile(copied, []byte(text), 0o644); err != nil {
		return err
	}
	return mount(copied, path, "", unix.MS_BIND, "")
}

// mountImage makes a file system of size bytes and mounts it. Its file has no
// name and its loop device frees itself: both vanish with the mount.
func mountImage(ctx context.Context, kind FileSystem, size int64, target string) error {
	file, err := namelessFile(size)
	if err != nil {
		return fmt.Errorf("lab: a file for the file system of %s: %w", target, err)
	}
	defer file.Close()
	mkfs, options := []string{"mkfs.ext4", "-q", "-F", "-m", "0", "-i", "65536", "-J", "size=16"}, "discard,noinit_itable"
	switch kind {
	case XFS:
		mkfs, options = []string{"mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1"}, "discard"
	case Btrfs:
		mkfs, options = []string{"mkfs.btrfs", "-q", "-f", "-K"}, "discard"
	}
	cmd := exec.CommandContext(ctx, mkfs[0], append(mkfs[1:], "/proc/self/fd/3")...)
	cmd.ExtraFiles = []*os.File{file}
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("lab: %s: %w\n%s", mkfs[0], err, out)
	}
	loop, err := attachLoop(file, unix.LO_FLAGS_AUTOCLEAR)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	return mount(loop.Name(), target, string(kind), 0, options)
}

// namelessFile returns a sparse file of size bytes that is gone when it is closed.
func namelessFile(size int64) (*os.File, error) {
	file, err := os.CreateTemp(diskDir, "os-rescue-lab-")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(file.Name()), file.Truncate(size)); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// attachLoop attaches a file to a free loop device and returns the device, open.
func attachLoop(file *os.File, flags uint32) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("lab: loop devices: %w", err)
	}
	defer control.Close()
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("lab: a free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("lab: loop device: %w", err)
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: flags}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		// Another process took it since we asked.
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("lab: attach a file to %s: %w", loop.Name(), err)
		}
	}
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("lab: mount %s on %s: %w", source, target, err)
	}
	return nil
}

// unmountAll unmounts everything at a path, however often it was mounted over.
func unmountAll(target string) error {
	for {
		switch err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); {
		case errors.Is(err, unix.EINVAL), errors.Is(err, fs.ErrNotExist):
			return nil // nothing is mounted there
		case err != nil:
			return fmt.Errorf("lab: unmount %s: %w", target, err)
		}
	}
}
