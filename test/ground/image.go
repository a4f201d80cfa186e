package ground

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// FileSystem names what an image is formatted with.
type FileSystem string

// The file systems that an image can have. All are loop-mounted, so O_DIRECT works as
// on a disk.
const (
	Ext4  FileSystem = "ext4"
	XFS   FileSystem = "xfs" // with reflink
	Btrfs FileSystem = "btrfs"
)

// Image is a file system in a file without a name: the file and the loop device vanish
// with the mount.
type Image struct {
	Dir  string // where the file is made
	Kind FileSystem
	Size int64 // in bytes, sparse
}

// Mount makes the file system and mounts it on target, which is made if it is missing.
func (i Image) Mount(ctx context.Context, target string) error {
	loop, err := i.attach(ctx)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	return mount(loop.Name(), target, string(i.Kind), 0, i.mountOptions())
}

// attach makes the file system and returns its loop device, open. Without a mount the
// device is freed when it is closed.
func (i Image) attach(ctx context.Context) (*os.File, error) {
	file, err := NamelessFile(i.Dir, i.Size)
	if err != nil {
		return nil, fmt.Errorf("a file for a file system: %w", err)
	}
	defer file.Close()
	mkfs := []string{"mkfs.ext4", "-q", "-F", "-m", "0", "-i", "65536", "-J", "size=16"}
	switch i.Kind {
	case XFS:
		mkfs = []string{"mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1"}
	case Btrfs:
		mkfs = []string{"mkfs.btrfs", "-q", "-f", "-K"}
	}
	cmd := exec.CommandContext(ctx, mkfs[0], append(mkfs[1:], "/proc/self/fd/3")...)
	cmd.ExtraFiles = []*os.File{file}
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", mkfs[0], err, out)
	}
	return AttachLoop(file, unix.LO_FLAGS_AUTOCLEAR)
}

func (i Image) mountOptions() string {
	if i.Kind == Ext4 {
		return "discard,noinit_itable"
	}
	return "discard"
}

// NamelessFile returns a sparse file of size bytes, made in dir, that is gone when it is
// closed.
func NamelessFile(dir string, size int64) (*os.File, error) {
	file, err := os.CreateTemp(dir, "os-rescue-")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(file.Name()), file.Truncate(size)); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// AttachLoop attaches a file to a free loop device, with flags of loop(4), and returns
// the device, open.
func AttachLoop(file *os.File, flags uint32) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop devices: %w", err)
	}
	defer control.Close()
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a free loop device: %w", err)
		}
		loop, err := openLoop(number)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: flags}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		// Another process took it since we asked.
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach a file to %s: %w", loop.Name(), err)
		}
	}
}

// openLoop opens a loop device. The kernel makes no node of it in a ground's /dev.
func openLoop(number int) (*os.File, error) {
	path := fmt.Sprintf("/dev/loop%d", number)
	loop, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return loop, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/dev", number))
	if err != nil {
		return nil, err
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(string(text), "%d:%d", &major, &minor); err != nil {
		return nil, fmt.Errorf("the numbers of %s: %w", path, err)
	}
	err = unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(major, minor)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the device %s: %w", path, err)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}
