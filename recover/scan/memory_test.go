package scan

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestADeletedFileIsMemoryOnlyIfItsQEMUHasItMapped(t *testing.T) {
	open := func(name string, mapped bool) *os.File {
		f, err := os.CreateTemp("/dev/shm", name)
		recovertest.Must(t, err)
		t.Cleanup(func() { f.Close() })
		recovertest.Must(t, f.Truncate(1<<16))
		if mapped {
			memory, err := unix.Mmap(int(f.Fd()), 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			recovertest.Must(t, err)
			t.Cleanup(func() { _ = unix.Munmap(memory) })
		}
		recovertest.Must(t, os.Remove(f.Name()))
		return f
	}
	ram, disk := open("pc.ram", true), open("disk", false)
	own, err := procfs.HeldBy(t.Context(), os.Getpid())
	recovertest.Must(t, err)
	at, err := identity.OfFile(ram)
	recovertest.Must(t, err)
	for what, c := range map[string]struct {
		domain recover.Domain
		places map[string]identity.Status
		ram    bool // the mapped file may be an image
	}{
		"memory": {domain: recover.Domain{PID: os.Getpid()}},
		"persistent memory may be it, which is data": {
			domain: recover.Domain{PID: os.Getpid(), Losses: []string{recover.LossVPMEM}}, ram: true},
		"it stands at the path of a disk": {
			domain: recover.Domain{PID: os.Getpid()}, places: map[string]identity.Status{classDisk: at}, ram: true},
		"what is mapped can't be seen": {domain: recover.Domain{}, ram: true},
	} {
		t.Run(what, func(t *testing.T) {
			images := withoutMemory(c.domain, candidates(own), c.places)
			has := func(f *os.File) bool {
				return slices.ContainsFunc(images, func(o candidate) bool { return o.FD == int(f.Fd()) })
			}
			if has(ram) != c.ram || !has(disk) {
				t.Errorf("%s is an image: %v, %s: %v", filepath.Base(ram.Name()), has(ram), filepath.Base(disk.Name()), has(disk))
			}
		})
	}
}
