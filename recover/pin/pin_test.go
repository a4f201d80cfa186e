package pin

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/qcow2"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestAFileReadWithODirectIsPlannedAndReadSo(t *testing.T) {
	// On a file system with O_DIRECT, which the memory of the other tests may not have.
	path := filepath.Join(t.TempDir(), "disk")
	recovertest.Must(t, os.WriteFile(path, recovertest.Payload(1, 64<<10), 0o600))
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	recovertest.Must(t, err)
	defer f.Close()
	recovertest.Must(t, os.Remove(path))
	mine, err := procfs.HeldBy(t.Context(), os.Getpid())
	recovertest.Must(t, err)
	for _, h := range mine {
		if h.FD != int(f.Fd()) {
			continue
		}
		file := recover.File{Path: path, State: recover.FileDeleted, Device: h.Stat.Dev, Inode: h.Stat.Ino, Holders: []recover.Holder{h.Holder()}}
		src, err := Open(file)
		recovertest.Must(t, err)
		defer src.File.Close()
		flags, err := unix.FcntlInt(src.File.Fd(), unix.F_GETFL, 0)
		recovertest.Must(t, err)
		if !src.Direct || flags&unix.O_DIRECT == 0 || !file.Holders[0].Direct || !file.Holders[0].Writable {
			t.Errorf("%+v %#o", file.Holders, flags)
		}
		buf, want := make([]byte, 10), recovertest.Payload(1, 64<<10)[4093:4103]
		if _, err := (qcow2.Aligned{File: src.File}).ReadAt(buf, 4093); err != nil || string(buf) != string(want) {
			t.Errorf("an odd read: %v", err)
		}
		file.Inode++
		if wrong, err := Open(file); err == nil {
			wrong.File.Close()
			t.Error("another inode was opened in its place")
		}
		return
	}
	t.Fatal("its own descriptor was not found")
}
