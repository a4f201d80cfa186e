package lyingfs_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/lab/patience"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

func mount(t *testing.T, opts lyingfs.Options) (*lyingfs.Server, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts a file system: run it as root")
	}
	dir := t.TempDir()
	server, err := lyingfs.Mount(dir, t.TempDir(), opts)
	must(t, err)
	t.Cleanup(func() { must(t, server.Unmount()) })
	return server, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openFile(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o640)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func read(t *testing.T, f *os.File, n int) []byte {
	t.Helper()
	data := make([]byte, n)
	_, err := f.ReadAt(data, 0)
	must(t, err)
	return data
}

func TestBufferedReadersSeeTheFileAsCreatedAndDirectOnesTheTruth(t *testing.T) {
	_, dir := mount(t, lyingfs.Options{})
	path := filepath.Join(dir, "disk")
	created, written := bytes.Repeat([]byte("created."), 512), bytes.Repeat([]byte("written."), 1024)
	must(t, os.WriteFile(path, created, 0o600))

	before := openFile(t, path, os.O_RDONLY)
	guest := openFile(t, path, os.O_RDWR|unix.O_DIRECT)
	if got := read(t, guest, 4096); !bytes.Equal(got, created) {
		t.Fatal("before any direct write both are the same")
	}
	_, err := guest.WriteAt(written, 0)
	must(t, err)
	must(t, guest.Sync())
	must(t, os.Remove(path))

	self := func(flags int) *os.File { // as a rescue opens it
		f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(guest.Fd())), flags, 0)
		must(t, err)
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	if got := read(t, self(os.O_RDONLY|unix.O_DIRECT), 8192); !bytes.Equal(got, written) {
		t.Error("a direct reader must see what was written")
	}
	stale := append(bytes.Clone(created), make([]byte, 4096)...)
	for _, f := range []*os.File{before, self(os.O_RDONLY)} {
		if got := read(t, f, 8192); !bytes.Equal(got, stale) {
			t.Error("a buffered reader must see the file as created, in its true size")
		}
	}
	// What is written buffered is seen by both.
	w := self(os.O_RDWR)
	_, err = w.WriteAt([]byte("both"), 0)
	must(t, err)
	if string(read(t, w, 8)) != "bothted." || string(read(t, guest, 8)) != "bothten." {
		t.Error("a buffered write reaches both views")
	}
}

func TestDirectOpensAreRefusedOnRequestAndOpenOnesGoOn(t *testing.T) {
	server, dir := mount(t, lyingfs.Options{})
	path := filepath.Join(dir, "disk")
	guest := openFile(t, path, os.O_RDWR|os.O_CREATE|unix.O_DIRECT)
	server.RefuseDirect(true)
	if _, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("error %v", err)
	}
	if _, err := guest.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Errorf("error %v", err)
	}
	openFile(t, path, os.O_RDONLY)
	server.RefuseDirect(false)
	openFile(t, path, os.O_RDONLY|unix.O_DIRECT)
}

func TestItCarriesWhatQEMUAndAPublicationNeed(t *testing.T) {
	_, dir := mount(t, lyingfs.Options{})
	path := filepath.Join(dir, "UUID", "disk")
	must(t, os.Mkdir(filepath.Dir(path), 0o755))
	f := openFile(t, path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_DIRECT)
	fd := int(f.Fd())
	must(t, f.Chown(64055, 64056))
	must(t, f.Chmod(0o644))
	must(t, f.Truncate(1<<20))
	must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
	must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 100, Len: 1}))
	other := openFile(t, path, os.O_RDWR)
	second := unix.Flock_t{Type: unix.F_WRLCK, Start: 100, Len: 1}
	if err := unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &second); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a second lock: %v", err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, filepath.Dir(path), unix.RENAME_NOREPLACE); !errors.Is(err, unix.EEXIST) {
		t.Errorf("rename onto what exists: %v", err)
	}
	staged := filepath.Join(dir, "staged")
	must(t, unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, staged, unix.RENAME_NOREPLACE))
	must(t, os.Remove(staged))

	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	if st.Nlink != 0 || st.Uid != 64055 || st.Gid != 64056 || st.Mode != unix.S_IFREG|0o644 || st.Size != 1<<20 {
		t.Errorf("after the deletion: %+v", st)
	}
	var fs unix.Statfs_t
	must(t, unix.Fstatfs(fd, &fs))
	if fs.Type != unix.FUSE_SUPER_MAGIC || fs.Bavail == 0 {
		t.Errorf("%+v", fs)
	}
	if pos, err := unix.Seek(fd, 0, unix.SEEK_DATA); !errors.Is(err, unix.ENXIO) {
		t.Errorf("SEEK_DATA in a hole: %d, %v", pos, err)
	}
}

func TestADeletedFileThatIsOpenKeepsAHiddenName(t *testing.T) {
	_, dir := mount(t, lyingfs.Options{SillyRename: true})
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o755))
	path := filepath.Join(sub, "disk")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	must(t, os.Remove(path))
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the name is still there: %v", err)
	}
	if err := os.Remove(sub); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("its directory can be removed: %v", err)
	}
	must(t, f.Close())
	if err := patience.Retry(func() error { return os.Remove(sub) }); err != nil { // a release is not waited for
		t.Errorf("when it is closed, its directory can't be removed: %v", err)
	}
}
