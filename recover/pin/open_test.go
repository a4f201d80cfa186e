package pin

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

// remote mounts a file system that opens no deleted file anew.
func remote(t *testing.T) (string, *lyingfs.Server) {
	t.Helper()
	dir := t.TempDir()
	server, err := lyingfs.Mount(dir, t.TempDir(), lyingfs.Options{KeepClosed: true})
	recovertest.Must(t, err)
	t.Cleanup(func() { recovertest.Must(t, server.Unmount()) })
	return dir, server
}

// scanned is a file as a scan finds it that this process has open.
func scanned(t *testing.T, f *os.File) recover.File {
	t.Helper()
	mine, err := procfs.HeldBy(t.Context(), os.Getpid())
	recovertest.Must(t, err)
	for _, h := range mine {
		if h.FD == int(f.Fd()) {
			return recover.File{
				Path:     f.Name(),
				State:    recover.FileDeleted,
				Device:   h.Stat.Dev,
				Inode:    h.Stat.Ino,
				Unlinked: h.Unlinked(),
				Holders:  []recover.Holder{h.Holder()},
			}
		}
	}
	t.Fatal("its own descriptor was not found")
	return recover.File{}
}

func TestADuplicateIsReadAndLeavesItsOwnerAlone(t *testing.T) {
	dir, server := remote(t)
	f, err := os.OpenFile(filepath.Join(dir, "disk"), os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	recovertest.Must(t, err)
	defer f.Close()
	content := recovertest.Payload(1, 64<<10)
	_, err = f.Write(content)
	recovertest.Must(t, err)
	at, err := f.Seek(4096, io.SeekStart)
	recovertest.Must(t, err)
	recovertest.Must(t, os.Remove(f.Name()))
	if again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); !errors.Is(err, unix.ESTALE) {
		again.Close()
		t.Fatalf("it is expected not to be opened anew: %v", err)
	}

	src, err := Open(scanned(t, f))
	recovertest.Must(t, err)
	defer src.File.Close()
	got := make([]byte, len(content))
	_, err = src.File.ReadAt(got, 0)
	recovertest.Must(t, err)
	if !src.Duplicate || !src.Direct || string(got) != string(content) {
		t.Errorf("%+v, the same content: %t", src, string(got) == string(content))
	}
	if now, err := f.Seek(0, io.SeekCurrent); err != nil || now != at {
		t.Errorf("the owner's offset went from %d to %d: %v", at, now, err)
	}

	server.Forget()
	file := scanned(t, f)
	if _, err := Open(file); !errors.Is(err, ErrStale) || !file.Unlinked {
		t.Errorf("%v; unlinked: %t", err, file.Unlinked)
	}
}

func TestNoDuplicateIsTakenThatWouldKeepOthersFromAFile(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		flags  int
		remove bool
		ok     bool
	}{
		"of a file without a name":   {os.O_RDWR, true, true},
		"of one to read":             {os.O_RDONLY, true, true},
		"of one to write":            {os.O_WRONLY, true, false},
		"of a file with a name":      {os.O_RDWR, false, false},
		"of one that does not block": {os.O_RDWR | unix.O_NONBLOCK, true, false},
	} {
		path := filepath.Join(dir, name)
		recovertest.Must(t, os.WriteFile(path, []byte("x"), 0o600))
		fd, err := unix.Open(path, c.flags|unix.O_CLOEXEC, 0)
		recovertest.Must(t, err)
		if c.remove {
			recovertest.Must(t, os.Remove(path))
		}
		f, err := procfs.Duplicate(os.Getpid(), fd)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, procfs.ErrNoDuplicate) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			f.Close()
		}
		unix.Close(fd)
	}
	if _, err := procfs.Duplicate(os.Getpid(), 1<<19); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a descriptor that is not there: %v", err)
	}
}
