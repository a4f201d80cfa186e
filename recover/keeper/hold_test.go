package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/plainfile"
)

func TestAFileIsHeldUntilItsLastOwnerReleasesIt(t *testing.T) {
	c := start(t, stateDir(t))
	ctx := t.Context()
	f, key := deleted(t, "base")
	other, otherKey := deleted(t, "disk")
	for range 2 { // again is no more than once
		must(t, c.Hold(ctx, "b", key, json.RawMessage(`{"n":1}`), f))
		must(t, c.Hold(ctx, "a", key, nil, f))
	}
	must(t, c.Hold(ctx, "a", otherKey, nil, other))
	f.Close()
	list, err := c.List(ctx)
	must(t, err)
	i := slices.IndexFunc(list, func(h Hold) bool { return h.Key == key })
	if len(list) != 2 || i < 0 || !slices.Equal(list[i].Owners, []string{"a", "b"}) || string(list[i].Meta) != `{"n":1}` {
		t.Fatalf("it holds %+v", list)
	}
	must(t, c.Release(ctx, "b", otherKey))   // not b's
	must(t, c.Release(ctx, "b", key, "1:1")) // 1:1 is nobody's
	if got := content(t, c, key); got != "base" {
		t.Errorf("after one of two released it: %q", got)
	}
	must(t, c.Release(ctx, "a", key))
	if _, err := c.Open(ctx, key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after both released it: %v", err)
	}
	if got := content(t, c, otherKey); got != "disk" {
		t.Errorf("the other one: %q", got)
	}
}

func TestTheKeeperRefusesWhatItShouldNotHold(t *testing.T) {
	c := start(t, stateDir(t))
	ctx := t.Context()
	f, key := deleted(t, "x")
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, nil, 0o600))
	open := func(path string, flags int) (*os.File, string) {
		f, err := os.OpenFile(path, flags, 0)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		key, err := Key(f)
		must(t, err)
		return f, key
	}
	rw, rwKey := open(path, os.O_RDWR)
	pathOnly, pathKey := open(path, unix.O_PATH)
	folder, folderKey := open(filepath.Dir(path), os.O_RDONLY)
	for _, tc := range []struct {
		name       string
		owner, key string
		meta       string
		file       *os.File
	}{
		{"another file's key", "a", "1:1", "1", f},
		{"no key", "a", "x", "1", f},
		{"no owner", "", key, "1", f},
		{"a writable file", "a", rwKey, "1", rw},
		{"a mere path", "a", pathKey, "1", pathOnly},
		{"a directory", "a", folderKey, "1", folder},
		{"meta of no JSON", "a", key, "{", f},
		{"meta beyond limits", "a", key, `"` + strings.Repeat("x", maxMeta) + `"`, f},
	} {
		if err := c.Hold(ctx, tc.owner, tc.key, json.RawMessage(tc.meta), tc.file); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: the client says %v, want ErrRefused", tc.name, err)
		}
		r := request{Op: opHold, Owner: tc.owner, Key: tc.key, Meta: json.RawMessage(tc.meta)}
		if _, _, err := c.roundTrip(ctx, r, tc.file); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: the keeper says %v, want ErrRefused", tc.name, err)
		}
	}
	if _, _, err := c.roundTrip(ctx, request{Op: opHold, Owner: "a", Key: key}, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("no descriptor: %v", err)
	}
	if _, _, err := c.roundTrip(ctx, request{Op: opOpen, Key: key}, f); !errors.Is(err, ErrRefused) {
		t.Errorf("a descriptor with a request that takes none: %v", err)
	}
	closed, closedKey := open(path, os.O_RDONLY)
	closed.Close()
	if err := c.Hold(ctx, "a", closedKey, nil, closed); !errors.Is(err, ErrRefused) {
		t.Errorf("a closed file: %v", err)
	}
	list, err := c.List(ctx) // and the connection is as good as before
	must(t, err)
	if len(list) != 0 {
		t.Errorf("it holds %v", list)
	}
	must(t, c.Hold(ctx, "a", key, nil, f))
}

func TestFiveHundredFilesAreHeldAndReleased(t *testing.T) {
	c := start(t, stateDir(t))
	ctx := t.Context()
	dir := t.TempDir()
	meta := json.RawMessage(`"` + strings.Repeat("m", 2000) + `"`) // all of it is far more than one message
	keys := map[string]string{}
	var list []string
	for i := range 500 {
		path := fmt.Sprintf("%s/%d", dir, i)
		must(t, os.WriteFile(path, []byte(path), 0o600))
		f, err := os.Open(path)
		must(t, err)
		key, err := Key(f)
		must(t, err)
		must(t, c.Hold(ctx, "a", key, meta, f))
		f.Close()
		must(t, os.Remove(path))
		keys[key] = path
		list = append(list, key)
	}
	held, err := c.List(ctx)
	must(t, err)
	for _, h := range held {
		if !bytes.Equal(h.Meta, meta) || content(t, c, h.Key) != keys[h.Key] {
			t.Fatalf("%s is not what was held", h.Key)
		}
	}
	if len(held) != 500 {
		t.Errorf("%d are held", len(held))
	}
	for len(list) < keysPerMessage { // more than one message of keys
		list = append(list, "1:1")
	}
	must(t, c.Release(ctx, "a", append(list, list[:100]...)...))
	if held, err := c.List(ctx); err != nil || len(held) != 0 {
		t.Errorf("%d are left, %v", len(held), err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.PID()))
	must(t, err)
	if len(fds) > 20 {
		t.Errorf("it has %d descriptors left", len(fds))
	}
}

// seqpacket sends the keeper a message from Python, as this uid.
const seqpacket = `
import os, socket, sys
os.chdir(sys.argv[1])
os.setuid(int(sys.argv[2]))
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect('keeper.sock')
try:
    for m in sys.argv[3:]:
        s.send(m.encode())
        print(s.recv(1 << 16).decode())
except (BrokenPipeError, ConnectionResetError):
    print()
`

func TestNobodyButRootIsAnswered(t *testing.T) {
	dir := stateDir(t)
	start(t, dir)
	// Even when the modes of directory and socket let everybody in.
	must(t, os.Chmod(dir, 0o711))
	must(t, os.Chmod(filepath.Join(dir, socketName), 0o666))
	ask := func(uid string, messages ...string) string {
		t.Helper()
		out, err := exec.Command("python3", append([]string{"-c", seqpacket, dir, uid}, messages...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("this test needs python3: %v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got := ask("0", `{"op":"list"}`); got != `{"end":true}` {
		t.Errorf("root is answered %q", got)
	}
	if got := ask("65534", `{"op":"list"}`); got != "" {
		t.Errorf("uid 65534 is answered %q", got)
	}
	got := ask("0", "junk", `{"op":"format"}`, `{"op":"hold","owner":"a","key":"1:1"}`, `{"op":"list"}`)
	if lines := strings.Split(got, "\n"); len(lines) != 4 || strings.Count(got, `"error"`) != 3 || lines[3] != `{"end":true}` {
		t.Errorf("nonsense is answered %s", got)
	}
}

func TestTheSocketIsRootsAlone(t *testing.T) {
	dir := stateDir(t)
	start(t, dir)
	for name, want := range map[string]fs.FileMode{
		".":        fs.ModeDir | 0o700,
		socketName: fs.ModeSocket | 0o600,
		lockName:   0o600,
		logName:    0o600,
	} {
		info, err := os.Lstat(filepath.Join(dir, name))
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
	for mode, owner := range map[fs.FileMode]int{0o777: 0, 0o770: 0, 0o700: 65534} {
		dir := t.TempDir()
		must(t, errors.Join(os.Chmod(dir, mode), os.Chown(dir, owner, 65534)))
		if c, err := Start(t.Context(), options(dir, time.Millisecond)); err == nil {
			t.Errorf("a keeper was started in a directory of uid %d with mode %v", owner, mode)
			c.Close()
		}
		if c, err := Start(t.Context(), options(filepath.Join(dir, "a/b"), time.Millisecond)); err == nil {
			t.Errorf("a keeper was started below a directory of uid %d with mode %v", owner, mode)
			c.Close()
		}
	}
}

func TestAClientHonoursItsContext(t *testing.T) {
	c := start(t, stateDir(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.List(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if _, err := c.List(t.Context()); err != nil {
		t.Errorf("and then: %v", err)
	}
	must(t, c.Close())
	must(t, c.Close())
	if _, err := c.List(t.Context()); !errors.Is(err, ErrNoKeeper) {
		t.Errorf("after Close: %v", err)
	}
}

func TestWhatIsNoFileInAKeepersPlaceIsAnErrorAtOnce(t *testing.T) {
	for _, name := range []string{logName, lockName} {
		for what, put := range map[string]func(path string) error{
			"a FIFO":          func(path string) error { return unix.Mkfifo(path, 0o600) },
			"/dev/zero":       func(path string) error { return os.Symlink("/dev/zero", path) },
			"a directory":     func(path string) error { return os.Mkdir(path, 0o700) },
			"a dangling link": func(path string) error { return os.Symlink("nothing", path) },
		} {
			dir := stateDir(t)
			must(t, errors.Join(os.MkdirAll(dir, 0o700), put(filepath.Join(dir, name))))
			begin := time.Now()
			c, err := Start(t.Context(), options(dir, time.Millisecond))
			if !errors.Is(err, plainfile.ErrNotRegular) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s as %s: %v", what, name, err)
			}
			if took := time.Since(begin); took > startTime/2 {
				t.Errorf("%s as %s: it took %s", what, name, took)
			}
			if c != nil {
				c.Close()
			}
		}
	}
}
