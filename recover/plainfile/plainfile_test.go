package plainfile_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/plainfile"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Whatever others can put in a file's place is an error at once, that names it.
func TestNothingButARegularFileIsOpened(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	socket, err := net.Listen("unix", in("socket"))
	must(t, err)
	defer socket.Close()
	must(t, os.WriteFile(in("file"), []byte("content"), 0o600), os.Mkdir(in("dir"), 0o700), unix.Mkfifo(in("fifo"), 0o600),
		os.Symlink("file", in("link")), os.Symlink("nothing", in("dangling")), os.Symlink("/dev/zero", in("zero")),
		os.Symlink("loop", in("loop")), os.Symlink("fifo", in("to fifo")))
	for _, c := range []struct {
		name     string
		symlinks bool
		want     error
		words    string
	}{
		{"file", false, nil, ""},
		{"dir", false, plainfile.ErrNotRegular, "a directory"},
		{"fifo", false, plainfile.ErrNotRegular, "a FIFO"},
		{"socket", false, plainfile.ErrNotRegular, "a socket"},
		{"link", false, plainfile.ErrNotRegular, "a symlink"},
		{"link", true, nil, ""},
		{"zero", true, plainfile.ErrNotRegular, "a device"},
		{"to fifo", true, plainfile.ErrNotRegular, "a FIFO"},
		{"dangling", true, fs.ErrNotExist, ""},
		{"loop", true, unix.ELOOP, ""},
		{"none", false, fs.ErrNotExist, ""},
	} {
		begin := time.Now()
		data, err := plainfile.Read(in(c.name), plainfile.Rules{Most: 100, Symlinks: c.symlinks})
		switch {
		case c.want == nil && (err != nil || string(data) != "content"):
			t.Errorf("%s: %q, %v", c.name, data, err)
		case !errors.Is(err, c.want), c.want != nil && (!strings.Contains(err.Error(), in(c.name)) || !strings.Contains(err.Error(), c.words)):
			t.Errorf("%s: error %v", c.name, err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s: it took %s", c.name, took)
		}
	}
}

func TestAFileIsReadOnlyUpToItsLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("12345"), 0o600))
	if data, err := plainfile.Read(path, plainfile.Rules{Most: 5}); err != nil || string(data) != "12345" {
		t.Errorf("as large as it may be: %q, %v", data, err)
	}
	if data, err := plainfile.Read(path, plainfile.Rules{Most: 4}); !errors.Is(err, plainfile.ErrTooLarge) || data != nil {
		t.Errorf("larger: %q, %v", data, err)
	}
}

func TestWhatOthersCanWriteIsNotOurs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("x"), 0o600))
	for _, c := range []struct {
		uid, gid int
		mode     os.FileMode
		ours     bool
	}{
		{0, 0, 0o600, true}, {0, 0, 0o644, true}, {0, 65534, 0o644, true}, {0, 0, 0o664, true}, {0, 65534, 0o664, false},
		{0, 0, 0o646, false}, {65534, 0, 0o644, false},
	} {
		must(t, os.Chmod(path, c.mode), os.Chown(path, c.uid, c.gid))
		_, err := plainfile.Read(path, plainfile.Rules{Most: 10, Ours: true})
		if (err == nil) != c.ours || err != nil && !errors.Is(err, plainfile.ErrNotOurs) {
			t.Errorf("of user %d and group %d, mode %o: error %v", c.uid, c.gid, c.mode, err)
		}
		if _, err := plainfile.Read(path, plainfile.Rules{Most: 10}); err != nil {
			t.Errorf("where that is no matter: %v", err)
		}
	}
}
