package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/ground"
)

// labDir holds the lab's own files inside: sockets, the built binary.
const labDir = "/run/os-rescue-lab"

// cacheVariable names the directory of the guest's image; test/.cache when it is not set.
const cacheVariable = "OS_RESCUE_LAB_CACHE"

// diskDir is the machine's own directory for temporary files, which is on a
// disk: /var/tmp, or what OS_RESCUE_LAB_DISK names.
const diskDir = labDir + "/disk"

// FileSystem names what the instances live on.
type FileSystem = ground.FileSystem

// The file systems a lab can give to /var/lib/nova.
const (
	Ext4  = ground.Ext4
	XFS   = ground.XFS
	Btrfs = ground.Btrfs
)

// prepareGround makes the new namespaces a machine of their own, with dirs of the
// machine besides what this program needs.
func prepareGround(ctx context.Context, dirs []string) error {
	o, err := ground.Here(ctx)
	if err != nil {
		return err
	}
	for _, dir := range append(dirs, os.Getenv(cacheVariable)) {
		if dir == "" {
			continue
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		o.Dirs = append(o.Dirs, dir)
	}
	if disk := os.Getenv("OS_RESCUE_LAB_DISK"); disk != "" {
		o.Disk.Dir = disk
	}
	o.Binds = []ground.Bind{{Source: cmp.Or(o.Disk.Dir, ground.ScratchDir), Target: diskDir}}
	o.Groups = []string{"libvirt"} // who may speak to libvirtd
	o.Users = []ground.User{
		{Name: "nova", Home: NovaDir, Shell: "/bin/sh"},
		{Name: "libvirt-qemu", Group: "kvm", Groups: []string{"libvirt-qemu"}, Home: "/var/lib/libvirt"},
	}
	// Where only root may open it, whom libvirt probes QEMU as, libvirtd takes what it
	// knows of QEMU for outdated and probes anew with every call, a second each time. No
	// guest uses it.
	o.KVM = "kvm"
	return ground.Pivot(ctx, o)
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

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("lab: mount %s on %s: %w", source, target, err)
	}
	return nil
}
