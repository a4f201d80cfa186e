package copier_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func attributeOf(t *testing.T, f *os.File, name string) []byte {
	t.Helper()
	value := make([]byte, 1<<16)
	n, err := unix.Fgetxattr(int(f.Fd()), name, value)
	if err == unix.ENODATA {
		return nil
	}
	must(t, err)
	return value[:n]
}

// project returns the project of a file, after it was set to want if that is not 0.
func project(t *testing.T, f *os.File, want uint32) uint32 {
	t.Helper()
	var a [28]byte
	ioctl := func(request uintptr) {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&a))); errno != 0 {
			t.Fatal(errno)
		}
	}
	ioctl(0x801c581f)
	if want != 0 {
		binary.NativeEndian.PutUint32(a[12:], want)
		ioctl(0x401c5820)
	}
	return binary.NativeEndian.Uint32(a[12:])
}

func TestACopyHasTheAttributesOfItsSourceAndNoOthers(t *testing.T) {
	for _, kind := range []string{xfsReflink, ext4, btrfs} {
		t.Run(kind, func(t *testing.T) {
			dir := mount(t, kind, 400)
			label := []byte("system_u:object_r:svirt_image_t:s0:c1,c2\x00")
			long := bytes.Repeat([]byte("x"), 3000)
			src := deleted(t, dir, false, func(f *os.File) {
				for name, value := range map[string][]byte{
					"user.note": long, "security.selinux": label, "system.posix_acl_access": recovertest.AccessList(5),
					"trusted.libvirt.security.ref_dac": []byte("1"),
				} {
					must(t, unix.Fsetxattr(int(f.Fd()), name, value, 0))
				}
				if kind == xfsReflink {
					project(t, f, 77)
				}
			})
			plain := deleted(t, dir, false, func(*os.File) {})
			must(t, unix.Setxattr(dir, "system.posix_acl_default", recovertest.AccessList(6), 0))
			dst := target(t, dir)
			must(t, copier.KeepAttributes(dst, src))
			if got := attributeOf(t, dst, "user.note"); !bytes.Equal(got, long) {
				t.Errorf("the note: %q", got)
			}
			if got := attributeOf(t, dst, "security.selinux"); !bytes.Equal(got, label) {
				t.Errorf("the label: %q", got)
			}
			if got := attributeOf(t, dst, "system.posix_acl_access"); !bytes.Equal(got, recovertest.AccessList(5)) {
				t.Errorf("the access control list: %x", got)
			}
			if got := attributeOf(t, dst, "trusted.libvirt.security.ref_dac"); got != nil {
				t.Errorf("libvirt's bookkeeping: %q", got)
			}
			if kind == xfsReflink && project(t, dst, 0) != 77 {
				t.Errorf("its project is %d", project(t, dst, 0))
			}
			// One without a list had none, whatever its directory says.
			must(t, copier.KeepAttributes(dst, plain))
			if got := attributeOf(t, dst, "system.posix_acl_access"); got != nil {
				t.Errorf("it has an access control list that its source has not: %x", got)
			}
		})
	}
}

func TestWhereThereAreNoAttributesNothingIsKept(t *testing.T) {
	dir := mount(t, lying, 0)
	src := deleted(t, dir, false, func(*os.File) {})
	must(t, copier.KeepAttributes(target(t, dir), src))
}
