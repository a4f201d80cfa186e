package recover

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/qcow2"
)

func TestAFileReadWithODirectIsPlannedAndReadSo(t *testing.T) {
	// On a file system with O_DIRECT, which the memory of the other tests may not have.
	path := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(path, payload(1, 64<<10), 0o600))
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	must(t, err)
	defer f.Close()
	must(t, os.Remove(path))
	mine, err := heldBy(t.Context(), os.Getpid())
	must(t, err)
	for _, h := range mine {
		if h.FD != int(f.Fd()) {
			continue
		}
		file := File{Path: path, State: FileDeleted, Device: h.Stat.Dev, Inode: h.Stat.Ino, Holders: []Holder{h.holder()}}
		src, err := openHeld(file)
		must(t, err)
		defer src.File.Close()
		flags, err := unix.FcntlInt(src.File.Fd(), unix.F_GETFL, 0)
		must(t, err)
		if !src.Direct || flags&unix.O_DIRECT == 0 || !file.Holders[0].Direct || !file.Holders[0].Writable {
			t.Errorf("%+v %#o", file.Holders, flags)
		}
		buf := make([]byte, 10)
		if _, err := (qcow2.Aligned{File: src.File}).ReadAt(buf, 4093); err != nil || string(buf) != string(payload(1, 64<<10)[4093:4103]) {
			t.Errorf("an odd read: %v", err)
		}
		file.Inode++
		if wrong, err := openHeld(file); err == nil {
			wrong.File.Close()
			t.Error("another inode was opened in its place")
		}
		return
	}
	t.Fatal("its own descriptor was not found")
}
