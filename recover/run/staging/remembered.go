package staging

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// remembered are the attributes in which libvirt keeps, while a domain runs, the owner and the
// label that its disk had before the start and gets back after the stop; how many domains use
// it; and since which boot that holds (src/security/security_util.c).
func remembered(driver string) (was, users, since string) {
	const prefix = "trusted.libvirt.security."
	return prefix + driver, prefix + "ref_" + driver, prefix + "timestamp_" + driver
}

// Remember has libvirt give the published disks of a running guest, when that stops, the owners
// and labels that it would have given the lost ones. At the start it noted those that the
// run had published them with. What can't be kept is noted with the task: nothing depends on it.
func Remember(ctx context.Context, s *Set) {
	for _, staged := range s.staged {
		if staged.want.Writable {
			RememberOne(ctx, s.t, staged.want, staged.file, false)
		}
	}
}

// RememberOne is Remember for one file. With anew libvirt has noted nothing for it: a disk
// that a running guest was moved onto.
func RememberOne(ctx context.Context, t *task.Task, f recover.FilePlan, file *os.File, anew bool) {
	if f.Content != "" || f.Stored != "" {
		return // not libvirt's: it was stored by os-rescue
	}
	src, err := t.Run.Source(ctx, f)
	if errors.Is(err, fs.ErrNotExist) {
		return // a resumed run's: what libvirt noted is gone with the inode
	}
	if err == nil {
		err = remember(file, src.File, anew)
	}
	if err != nil {
		t.Notef("when its domain stops, %s may keep the owner that it has while it runs: %v", f.Path, err)
	}
}

func remember(dst, src *os.File, anew bool) error {
	var errs error
	for _, driver := range []string{"dac", "selinux"} {
		wasName, usersName, sinceName := remembered(driver)
		was, users, since := attribute(src, wasName), attribute(src, usersName), attribute(src, sinceName)
		switch now := attribute(dst, usersName); {
		case was == nil || users == nil || since == nil: // libvirt has noted nothing
		case anew && now == nil:
			errs = errors.Join(errs, setAttribute(dst, wasName, was), setAttribute(dst, sinceName, since), setAttribute(dst, usersName, users))
		case now != nil && bytes.Equal(now, users):
			errs = errors.Join(errs, setAttribute(dst, wasName, was))
		}
	}
	return errs
}

// attribute returns an extended attribute of a file; nil without one.
func attribute(f *os.File, name string) []byte {
	value := make([]byte, 1024)
	n, err := unix.Fgetxattr(int(f.Fd()), name, value)
	if err != nil || n == 0 {
		return nil
	}
	return value[:n]
}

func setAttribute(f *os.File, name string, value []byte) error {
	if err := unix.Fsetxattr(int(f.Fd()), name, value, 0); err != nil {
		return &os.PathError{Op: "set " + name + " of", Path: f.Name(), Err: err}
	}
	return nil
}
