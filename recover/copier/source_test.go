package copier_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/copier"
)

func TestOpenSourceRefusesWhatIsNotARegularFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	for path, want := range map[string]error{
		fifo:                          copier.ErrNotRegular,
		dir:                           copier.ErrNotRegular,
		"/dev/null":                   copier.ErrNotRegular,
		filepath.Join(dir, "nothing"): os.ErrNotExist,
	} {
		if _, err := copier.OpenSource(path, false); !errors.Is(err, want) {
			t.Errorf("%s: error %v", path, err)
		}
	}
}

func TestWhatIsNotARegularFileIsNotEvenOpened(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(t, err)
	defer unix.Close(watch)
	_, err = unix.InotifyAddWatch(watch, fifo, unix.IN_OPEN)
	must(t, err)
	at, err := unix.Open(fifo, unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(at)
	if _, err := copier.OpenSource(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), at), false); !errors.Is(err, copier.ErrNotRegular) {
		t.Errorf("error %v", err)
	}
	var event [4096]byte
	if n, err := unix.Read(watch, event[:]); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("it was opened: an event of %d bytes, %v", n, err)
	}
}

func TestFileSystemsAreKnownByName(t *testing.T) {
	for kind, want := range map[string]struct {
		name             string
		coherent, shared bool
	}{
		xfsReflink: {"xfs", true, false},
		ext4:       {"ext4", true, false},
		btrfs:      {"btrfs", true, false},
		tmpfs:      {"tmpfs", false, false},
		lying:      {"fuse", false, true},
	} {
		f, err := os.Open(mount(t, kind, 400))
		must(t, err)
		name, coherent, err := copier.Coherent(f)
		must(t, err)
		shared, err := copier.Shared(f)
		must(t, err)
		if name != want.name || coherent != want.coherent || shared != want.shared {
			t.Errorf("%s: %q, coherent %t, shared %t", kind, name, coherent, shared)
		}
		must(t, f.Close())
	}
}
