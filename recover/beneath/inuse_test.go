package beneath

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestInUseFindsWhoHasTheFileOpenAtAnyPath(t *testing.T) {
	dir, path := openTestDir(t)
	build(t, path, "f disk", "f other")
	f, err := dir.Open("disk", os.O_RDONLY)
	must(t, err)
	defer f.Close()
	inUse := func(ignore ...int) []Holder {
		t.Helper()
		holders, err := InUse(f, ignore...)
		must(t, err)
		return holders
	}
	if got := inUse(); len(got) != 0 {
		t.Errorf("only this process has it open, and it is in use by %v", got)
	}
	must(t, os.Link(path+"/disk", path+"/link"))
	p := startPeer(t, "python3", "-c", "import sys\nf=open(sys.argv[1])\nprint(f.fileno(),flush=True)\nsys.stdin.read()", path+"/link")
	fd := p.line()
	must(t, os.Remove(path+"/link"))
	pid := p.cmd.Process.Pid
	got := inUse()
	if len(got) != 1 || got[0].PID != pid || fd != string(rune('0'+got[0].FD)) || got[0].Process == "" {
		t.Errorf("held by %v, want pid %d fd %s", got, pid, fd)
	}
	// If some process hides its descriptors, an ignored process can't be told from it.
	if got, err := InUse(f, pid); len(got) != 0 || err != nil && !errors.Is(err, fs.ErrPermission) {
		t.Errorf("not asked for pid %d, but got %v, %v", pid, got, err)
	}
	p.stop()
	if got := inUse(); len(got) != 0 {
		t.Errorf("after its end it is in use by %v", got)
	}
}

func TestAFileThatIsOpenAsAPathOnlyIsNotInUse(t *testing.T) {
	dir, path := openTestDir(t)
	build(t, path, "f disk")
	f, err := dir.Open("disk", os.O_RDONLY)
	must(t, err)
	defer f.Close()
	p := startPeer(t, "python3", "-c", "import os,sys\nprint(os.open(sys.argv[1],os.O_PATH),flush=True)\nsys.stdin.read()", path+"/disk")
	p.line()
	if got, err := InUse(f); err != nil || len(got) != 0 {
		t.Errorf("it is in use by %v, %v", got, err)
	}
	p.stop()
}

func TestInUseSeesQEMUsLocksThemselves(t *testing.T) {
	dir, path := openTestDir(t)
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", path+"/disk", "1M").CombinedOutput(); err != nil {
		t.Fatalf("this test needs qemu-utils: %v: %s", err, out)
	}
	f, err := dir.Open("disk", os.O_RDONLY)
	must(t, err)
	defer f.Close()
	p := startPeer(t, "qemu-io", "-f", "qcow2", path+"/disk")
	_, err = p.in.Write([]byte("map\n")) // it answers when the image is open
	must(t, err)
	p.line()
	// Its locks without its process: as if it were on another host.
	for _, base := range []int64{qemuPermBase, qemuSharedBase} {
		got, err := lockedBy(f, base)
		must(t, err)
		if !slices.Equal(got, []Holder{{PID: -1, FD: -1}}) {
			t.Errorf("locked from byte %d by %v, want a lock of QEMU's", base, got)
		}
	}
	got, err := InUse(f)
	must(t, err)
	if len(got) < 3 || got[0].PID != p.cmd.Process.Pid {
		t.Errorf("held by %v, want pid %d and its locks", got, p.cmd.Process.Pid)
	}
	p.stop()
	if got, err := InUse(f); err != nil || len(got) != 0 {
		t.Errorf("after its end: %v, %v", got, err)
	}
}

func TestALeaseIsGrantedOnlyWhereNobodyElseHasTheFileOpen(t *testing.T) {
	dir, path := openTestDir(t)
	build(t, path, "f disk")
	f, err := dir.Open("disk", os.O_RDONLY)
	must(t, err)
	defer f.Close()
	must(t, leased(f))
	other, err := dir.Open("disk", os.O_RDONLY)
	must(t, err)
	if err := leased(f); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("while somebody else reads it: %v", err)
	}
	other.Close()
	must(t, leased(f))
}
