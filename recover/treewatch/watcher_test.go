package treewatch

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// limitVariable marks the process whose user may have few watches.
const limitVariable = "TREEWATCH_TEST_LIMITED"

func watch(t *testing.T, dirs ...string) *Watcher {
	t.Helper()
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	set(t, w, dirs...)
	return w
}

// set sets the directories, and receives Set's own signal.
func set(t *testing.T, w *Watcher, dirs ...string) {
	t.Helper()
	w.Set(dirs)
	if err := w.Problem(); err != nil {
		t.Fatal(err)
	}
	settle(t, w)
}

// settle waits until all events were read, and receives their signal.
func settle(t *testing.T, w *Watcher) {
	t.Helper()
	drained(t, w)
	select {
	case <-w.C():
	default:
	}
}

// drained waits until all events were read and signalled. It ends with IN_IGNORED,
// which is not signalled itself and is read after the signal for the events before.
func drained(t *testing.T, w *Watcher) {
	t.Helper()
	conn, err := w.file.SyscallConn()
	do(t, err)
	none := t.TempDir()
	_ = conn.Control(func(fd uintptr) {
		empty(t, int(fd))
		wd, err := unix.InotifyAddWatch(int(fd), none, unix.IN_CREATE)
		do(t, err)
		_, err = unix.InotifyRmWatch(int(fd), uint32(wd))
		do(t, err)
		empty(t, int(fd))
	})
}

func empty(t *testing.T, fd int) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		waiting, err := unix.IoctlGetInt(fd, unix.TIOCINQ) // FIONREAD
		if err != nil || time.Since(start) > patience.Limit() {
			t.Fatal("the events are not read", err)
		}
		if waiting == 0 {
			return
		}
	}
}

func wantSignal(t *testing.T, w *Watcher, what string) {
	t.Helper()
	select {
	case <-w.C():
	case <-time.After(patience.Limit()):
		t.Fatalf("%s: nothing was heard in time", what)
	}
}

func wantSilence(t *testing.T, w *Watcher, what string) {
	t.Helper()
	drained(t, w)
	select {
	case <-w.C():
		t.Fatalf("%s: a change was signalled", what)
	default:
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestEveryChangeOfNamesIsHeard(t *testing.T) {
	tests := []struct {
		name   string
		watch  string // under the test's directory
		change func(dir string) error
	}{
		{"a file is made", "instances", func(d string) error { return os.WriteFile(d+"/instances/new", nil, 0o600) }},
		{"a directory is made", "instances", func(d string) error { return os.Mkdir(d+"/instances/new", 0o700) }},
		{"a file gets another name", "instances", func(d string) error { return os.Link(d+"/instances/disk", d+"/instances/new") }},
		{"a file is deleted", "instances", func(d string) error { return os.Remove(d + "/instances/disk") }},
		{"a directory is deleted", "instances", func(d string) error { return os.Remove(d + "/instances/uuid") }},
		{"a file is moved away", "instances", func(d string) error { return os.Rename(d+"/instances/disk", d+"/disk") }},
		{"a file is moved in", "instances", func(d string) error { return os.Rename(d+"/outside", d+"/instances/new") }},
		{"a file is renamed", "instances", func(d string) error { return os.Rename(d+"/instances/disk", d+"/instances/new") }},
		{"the directory is deleted", "instances/uuid", func(d string) error { return os.Remove(d + "/instances/uuid") }},
		{"the directory is moved", "instances/uuid", func(d string) error { return os.Rename(d+"/instances/uuid", d+"/moved") }},
		{"the file system is unmounted", "mounted", func(d string) error { return unix.Unmount(d+"/mounted", 0) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			do(t, os.MkdirAll(dir+"/instances/uuid", 0o700), os.Mkdir(dir+"/mounted", 0o700),
				os.WriteFile(dir+"/instances/disk", nil, 0o600), os.WriteFile(dir+"/outside", nil, 0o600))
			if err := unix.Mount("tmpfs", dir+"/mounted", "tmpfs", 0, ""); err != nil {
				t.Fatal("these tests need root: ", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir+"/mounted", unix.MNT_DETACH) })
			w := watch(t, filepath.Join(dir, tt.watch))
			do(t, tt.change(dir))
			wantSignal(t, w, tt.name)
			wantSilence(t, w, "nothing more")
		})
	}
}

// A flood of writes, like that of a QEMU, wakes nobody.
func TestWritesAreNotHeard(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	do(t, os.WriteFile(disk, nil, 0o600))
	w := watch(t, dir)
	for range 200 {
		f, err := os.OpenFile(disk, os.O_RDWR, 0)
		do(t, err)
		for i := range int64(100) {
			_, err := f.WriteAt([]byte("what a guest writes"), i*512)
			do(t, err)
		}
		do(t, f.Truncate(1<<20), f.Chmod(0o640), f.Sync(), f.Close())
		_, err = os.ReadFile(disk)
		do(t, err)
	}
	wantSilence(t, w, "writes")
	if n := w.Overflows(); n != 0 {
		t.Errorf("%d overflows", n)
	}
	do(t, os.Remove(disk))
	wantSignal(t, w, "the deletion after them")
}

func TestSignalsAreCoalescedAndNoneIsLost(t *testing.T) {
	dir := t.TempDir()
	w := watch(t, dir)
	for i := range 5000 {
		do(t, os.WriteFile(fmt.Sprint(dir, "/", i), nil, 0o600))
	}
	drained(t, w)
	wantSignal(t, w, "5000 files")
	wantSilence(t, w, "5000 files, received")
	do(t, os.RemoveAll(dir))
	wantSignal(t, w, "their end")
}

func TestTheSetFollows(t *testing.T) {
	dir := t.TempDir()
	a, b := dir+"/a", dir+"/b"
	do(t, os.Mkdir(a, 0o700), os.Mkdir(b, 0o700))
	w := watch(t, a)

	w.Set([]string{a, b})
	wantSignal(t, w, "a directory that was added: what happened in it before was not heard")
	w.Set([]string{a, b})
	wantSilence(t, w, "the same set again")

	do(t, os.WriteFile(b+"/file", nil, 0o600))
	wantSignal(t, w, "a file in the second")
	w.Set([]string{b})
	wantSilence(t, w, "one left out")
	do(t, os.WriteFile(a+"/file", nil, 0o600))
	wantSilence(t, w, "a file in the one left out")
	do(t, os.Remove(b+"/file"))
	wantSignal(t, w, "a deletion in the one that stayed")

	w.Set(nil)
	do(t, os.WriteFile(b+"/file", nil, 0o600))
	wantSilence(t, w, "none is watched")
}

func TestADirectoryThatIsNotThereIsNoProblem(t *testing.T) {
	dir := t.TempDir()
	do(t, os.Mkdir(dir+"/real", 0o700), os.WriteFile(dir+"/real/file", nil, 0o600), os.Symlink(dir+"/real", dir+"/link"))
	w := watch(t, dir, dir+"/missing", dir+"/missing/too", dir+"/real/file", dir+"/link")
	do(t, os.WriteFile(dir+"/real/other", nil, 0o600))
	wantSilence(t, w, "what a symlink leads to")
	do(t, os.Remove(dir+"/real/file"))
	wantSilence(t, w, "a file in the place of a directory")
	do(t, os.Mkdir(dir+"/missing", 0o700))
	wantSignal(t, w, "it has come, its parent says")
}

// A parent of the tree is moved: there is no event for the path, which now names
// another directory.
func TestAnotherDirectoryAtThePathIsWatched(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/nova/instances"
	do(t, os.MkdirAll(path, 0o700))
	w := watch(t, path)
	do(t, os.Rename(dir+"/nova", dir+"/old"), os.MkdirAll(path, 0o700))
	wantSilence(t, w, "a parent that moved")
	set(t, w, path)
	do(t, os.WriteFile(path+"/file", nil, 0o600))
	wantSignal(t, w, "the new directory")
	do(t, os.WriteFile(dir+"/old/instances/file", nil, 0o600))
	wantSilence(t, w, "the old one")
}

// Two paths to one directory are one watch, which stays while either is wanted.
func TestOneDirectoryByTwoPaths(t *testing.T) {
	dir := t.TempDir()
	do(t, os.MkdirAll(dir+"/a/b", 0o700))
	w := watch(t, dir+"/a", dir+"/a/b/..")
	set(t, w, dir+"/a")
	do(t, os.WriteFile(dir+"/a/file", nil, 0o600))
	wantSignal(t, w, "the directory")
}

// The kernel drops the events above fs.inotify.max_queued_events, here because
// nobody reads them.
func TestLostEventsAreCountedAndSignalled(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	do(t, err)
	var most int
	if _, err := fmt.Sscan(string(text), &most); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	do(t, err)
	w := &Watcher{
		file:    os.NewFile(uintptr(fd), "inotify"),
		changed: make(chan struct{}, 1),
		ended:   make(chan struct{}),
		watches: map[int]struct{}{},
	}
	w.Set([]string{dir})
	<-w.C()
	a, b := dir+"/a", dir+"/b"
	do(t, os.WriteFile(a, nil, 0o600))
	for range most/2 + 1 { // two events each, that differ from the one before
		do(t, os.Rename(a, b))
		a, b = b, a
	}
	go w.read()
	t.Cleanup(func() { w.Close() })
	wantSignal(t, w, "the overflow")
	drained(t, w)
	if n := w.Overflows(); n != 1 {
		t.Errorf("%d overflows, want 1", n)
	}
	settle(t, w)
	do(t, os.Remove(a))
	wantSignal(t, w, "what comes after")
}

// A user namespace has a limit of its own, which its root sets.
func TestTooManyDirectoriesAreAProblemAndTheOthersAreWatched(t *testing.T) {
	if os.Getenv(limitVariable) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
		cmd.Env = append(os.Environ(), limitVariable+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	do(t, os.WriteFile("/proc/sys/user/max_inotify_watches", []byte("2"), 0))
	dir := t.TempDir()
	var dirs []string
	for i := range 4 {
		dirs = append(dirs, fmt.Sprint(dir, "/", i))
		do(t, os.Mkdir(dirs[i], 0o700))
	}
	w := watch(t)
	w.Set(dirs)
	err := w.Problem()
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "2 of 4") || !strings.Contains(err.Error(), "max_user_watches") {
		t.Fatalf("problem %v, want ENOSPC, how many, and what to raise", err)
	}
	do(t, os.WriteFile("/proc/sys/user/max_inotify_watches", []byte("10"), 0))
	settle(t, w)
	do(t, os.WriteFile(dirs[0]+"/file", nil, 0o600))
	wantSignal(t, w, "one that is watched")
	set(t, w, dirs[:2]...) // fails if the problem stays
}

func TestCloseEndsTheReader(t *testing.T) {
	w, err := New()
	do(t, err)
	w.Set([]string{t.TempDir()})
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- w.Close() }()
	}
	for range 2 {
		select {
		case err := <-done:
			do(t, err)
		case <-time.After(patience.Limit()):
			t.Fatal("Close waits for an event")
		}
	}
	if err := w.Problem(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("problem %v, want os.ErrClosed", err)
	}
	w.Set([]string{"/"})
	if err := w.Problem(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("problem %v, want os.ErrClosed", err)
	}
}

func TestSetWhileTheTreeChanges(t *testing.T) {
	dir := t.TempDir()
	w := watch(t, dir)
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			sub := fmt.Sprint(dir, "/", i%7)
			_ = os.Mkdir(sub, 0o700)
			_ = os.WriteFile(sub+"/disk", nil, 0o600)
			_ = os.RemoveAll(sub)
		}
	}()
	for range 500 {
		dirs := []string{dir}
		for i := range 7 {
			dirs = append(dirs, fmt.Sprint(dir, "/", i))
		}
		w.Set(dirs)
		if err := w.Problem(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-ended
}

func FuzzMasks(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 'd', 'i', 's', 0})
	f.Add([]byte{1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 'd'})
	f.Fuzz(func(t *testing.T, buf []byte) {
		if masks(buf)&unix.IN_IGNORED != 0 {
			t.Error("IN_IGNORED came through")
		}
	})
}
