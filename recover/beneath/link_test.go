package beneath

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAnOpenFileGetsOneMoreName(t *testing.T) {
	dir, path := openTestDir(t)
	must(t, os.WriteFile(path+"/a", []byte("content"), 0o640))
	f, err := os.OpenFile(path+"/a", os.O_RDONLY, 0)
	must(t, err)
	defer f.Close()
	must(t, dir.Link(f, "b"))
	a, err := os.Stat(path + "/a")
	must(t, err)
	b, err := os.Stat(path + "/b")
	must(t, err)
	if !os.SameFile(a, b) {
		t.Error("it is another file")
	}
	if err := dir.Link(f, "b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a name that exists: %v", err)
	}
	must(t, os.Remove(path+"/a"))
	must(t, dir.Link(f, "c"))
	must(t, os.Remove(path+"/b"))
	must(t, os.Remove(path+"/c"))
	if err := dir.Link(f, "d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a file without a name: %v", err)
	}
}

// TestAFileThatAnotherNamespacesProcessHasOpenIsLinked: every QEMU of libvirt's has mounts of
// its own, and linkat(2) refuses those.
func TestAFileThatAnotherNamespacesProcessHasOpenIsLinked(t *testing.T) {
	dir, path := openTestDir(t)
	must(t, os.WriteFile(path+"/a", []byte("content"), 0o640))
	holder := exec.Command("unshare", "--mount", "sh", "-c", `exec 3<"$0"; echo; exec sleep 60`, path+"/a")
	out, err := holder.StdoutPipe()
	must(t, err)
	must(t, holder.Start())
	t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	_, err = out.Read(make([]byte, 1))
	must(t, err)
	f, err := os.Open("/proc/" + strconv.Itoa(holder.Process.Pid) + "/fd/3")
	must(t, err)
	defer f.Close()
	if err := unix.Linkat(int(f.Fd()), "", dir.fd, "x", unix.AT_EMPTY_PATH); !errors.Is(err, unix.EXDEV) {
		t.Fatalf("the kernel links it as it is: %v", err)
	}
	must(t, dir.Link(f, "b"))
	b, err := dir.Open("b", os.O_RDONLY)
	must(t, err)
	defer b.Close()
	want, err := f.Stat()
	must(t, err)
	got, err := b.Stat()
	must(t, err)
	if !os.SameFile(want, got) {
		t.Error("it is another file")
	}
}

func TestAFileOfAnotherFileSystemIsNotLinked(t *testing.T) {
	dir, _ := openTestDir(t)
	other, err := os.CreateTemp("/dev/shm", "link-test-")
	must(t, err)
	defer other.Close()
	defer os.Remove(other.Name())
	if err := dir.Link(other, "x"); !errors.Is(err, unix.EXDEV) {
		t.Errorf("%v", err)
	}
}
