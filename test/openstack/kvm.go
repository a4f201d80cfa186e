package openstack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

const kvmDevice = "/dev/kvm"

// shareKVM gives /dev/kvm, where it is, to the group kvm, as udev does on a
// machine that has it. No guest uses it; but while root can open it and the
// guests' user can't, libvirtd takes what it knows of QEMU for outdated and probes
// it anew in every call, four seconds each (src/qemu/qemu_capabilities.c,
// virQEMUCapsIsValid). Down gives it back.
func (b *Bed) shareKVM() error {
	var st syscall.Stat_t
	if err := syscall.Stat(kvmDevice, &st); err != nil {
		return nil //nolint:nilerr // there is none
	}
	group, err := user.LookupGroup("kvm")
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil || uint32(gid) == st.Gid {
		return err
	}
	if err := os.WriteFile(b.kvmGroup(), fmt.Appendln(nil, st.Gid), 0o644); err != nil {
		return err
	}
	return os.Chown(kvmDevice, -1, gid)
}

// kvmGroup is where the group is kept that /dev/kvm had.
func (b *Bed) kvmGroup() string { return filepath.Join(b.dir, "run", "kvm-group") }

func (b *Bed) unshareKVM() error {
	text, err := os.ReadFile(b.kvmGroup())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var gid int
	if _, err := fmt.Sscan(string(text), &gid); err != nil {
		return err
	}
	return errors.Join(os.Chown(kvmDevice, -1, gid), os.Remove(b.kvmGroup()))
}
