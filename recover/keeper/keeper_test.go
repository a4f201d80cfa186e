package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// TestMain makes the test binary a keeper, or a process that starts one, if asked.
func TestMain(m *testing.M) {
	dir := os.Getenv("KEEPER_DIR")
	switch os.Getenv("KEEPER_TEST") {
	case "serve":
		idle, err := time.ParseDuration(os.Getenv("KEEPER_IDLE"))
		if err == nil {
			err = Serve(context.Background(), Options{Dir: dir, Idle: idle})
		}
		exit(err)
	case "spawn":
		exit(spawnAndHold(dir, os.Getenv("KEEPER_FILE")))
	default:
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "these tests run keepers and must run as root")
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
}

func exit(err error) {
	if errors.Is(err, ErrRunning) {
		os.Exit(3)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// spawnAndHold starts a keeper, gives it a file to hold, deletes the file, prints the
// keeper's pid and waits to be killed.
func spawnAndHold(dir, file string) error {
	ctx := context.Background()
	c, err := Start(ctx, options(dir, time.Second))
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	key, err := Key(f)
	if err == nil {
		err = c.Hold(ctx, "uuid", key, json.RawMessage(`{"path":"`+file+`"}`), f)
	}
	if err == nil {
		err = os.Remove(file)
	}
	if err != nil {
		return err
	}
	fmt.Println(c.PID())
	io.Copy(io.Discard, os.Stdin)
	return nil
}

func options(dir string, idle time.Duration) Options {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Options{Dir: dir, Command: []string{"/usr/bin/env", "KEEPER_TEST=serve", "KEEPER_DIR=" + dir, "KEEPER_IDLE=" + idle.String(), self}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stateDir is a directory whose keeper, if any, is ended after the test.
func stateDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	t.Cleanup(func() {
		if c, err := Connect(context.Background(), dir); err == nil {
			unix.Kill(c.PID(), unix.SIGTERM)
			c.Close()
			waitEnd(t, dir)
		}
	})
	return dir
}

// waitEnd waits until no keeper has the directory's lock.
func waitEnd(t *testing.T, dir string) {
	t.Helper()
	lock, err := os.Open(filepath.Join(dir, lockName))
	must(t, err)
	defer lock.Close()
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	must(t, err)
}

func start(t *testing.T, dir string) *Client {
	t.Helper()
	c, err := Start(t.Context(), options(dir, time.Minute))
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// deleted returns an open file without a name, its key and its content.
func deleted(t *testing.T, content string) (*os.File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(path, []byte(content), 0o600))
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, os.Remove(path))
	key, err := Key(f)
	must(t, err)
	return f, key
}

func content(t *testing.T, c *Client, key string) string {
	t.Helper()
	f, err := c.Open(t.Context(), key)
	must(t, err)
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	must(t, err)
	return string(data)
}

// spawner starts spawnAndHold in its own session.
func spawner(t *testing.T, wrap []string, dir, file string) (*exec.Cmd, int) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	args := append(wrap, self)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "KEEPER_TEST=spawn", "KEEPER_DIR="+dir, "KEEPER_FILE="+file)
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	t.Cleanup(func() { stdin.Close() })
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatalf("the spawner says no pid: %v, %v", err, cmd.Wait())
	}
	return cmd, pid
}

func TestADeletedFileOutlivesTheKillOfWhoHeldIt(t *testing.T) {
	dir, mount := stateDir(t), t.TempDir()
	must(t, unix.Mount("tmpfs", mount, "tmpfs", 0, "size=16m"))
	t.Cleanup(func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Errorf("unmount %s: %v", mount, err)
		}
	})
	free := func() uint64 {
		var st unix.Statfs_t
		must(t, unix.Statfs(mount, &st))
		return st.Bfree
	}
	before := free()
	want := strings.Repeat("every byte ", 100_000)
	file := mount + "/disk"
	must(t, os.WriteFile(file, []byte(want), 0o600))

	cmd, pid := spawner(t, nil, dir, file)
	must(t, unix.Kill(-cmd.Process.Pid, unix.SIGKILL)) // the whole process group, which is its session too
	cmd.Wait()
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Fatalf("the keeper %d is in session %d, %v; want one of its own", pid, sid, err)
	}
	if free() == before {
		t.Fatal("the space was freed when the spawner was killed")
	}
	c, err := Connect(t.Context(), dir)
	must(t, err)
	list, err := c.List(t.Context())
	must(t, err)
	if len(list) != 1 || !slices.Equal(list[0].Owners, []string{"uuid"}) || list[0].Size != int64(len(want)) || list[0].Links != 0 ||
		list[0].Allocated < int64(len(want)) || list[0].Since.IsZero() || string(list[0].Meta) != `{"path":"`+file+`"}` {
		t.Fatalf("it holds %+v", list)
	}
	if c.PID() != pid || content(t, c, list[0].Key) != want {
		t.Error("the file is not what it was")
	}
	must(t, c.Release(t.Context(), "uuid"))
	if free() != before {
		t.Error("the space was not freed at the release")
	}
	must(t, c.Close())
	waitEnd(t, dir) // by itself
	if _, err := Connect(t.Context(), dir); !errors.Is(err, ErrNoKeeper) {
		t.Errorf("after its end: %v", err)
	}
}

func TestTheKeeperIsOutsideTheCgroupOfWhoStartedIt(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	root := mountOf(mounts, "cgroup2", "")
	if root == "" {
		t.Fatal("this test needs a cgroup v2 hierarchy")
	}
	group, err := os.MkdirTemp(root, "os-rescue-test-")
	must(t, err)
	t.Cleanup(func() {
		// A cgroup can go once the kernel has buried its last process.
		if err := patience.Retry(func() error { return os.Remove(group) }); err != nil {
			t.Error(err)
		}
	})
	dir, file := stateDir(t), filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(file, []byte("x"), 0o600))
	cmd, pid := spawner(t, []string{"/bin/sh", "-c", "echo $$ > " + group + "/cgroup.procs && exec $0"}, dir, file)
	procs, err := os.ReadFile(group + "/cgroup.procs")
	must(t, err)
	pids := strings.Fields(string(procs))
	if !slices.Contains(pids, strconv.Itoa(cmd.Process.Pid)) || slices.Contains(pids, strconv.Itoa(pid)) {
		t.Errorf("in the spawner's cgroup are %q; want the spawner %d and not the keeper %d", procs, cmd.Process.Pid, pid)
	}
	must(t, os.WriteFile(group+"/cgroup.kill", []byte("1"), 0)) // what systemd does at a unit's end
	cmd.Wait()
	c, err := Connect(t.Context(), dir)
	must(t, err)
	defer c.Close()
	if list, err := c.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("it holds %v, %v", list, err)
	}
}

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
		must(t, errors.Join(os.Chmod(dir, mode), os.Chown(dir, owner, owner)))
		if c, err := Start(t.Context(), options(dir, time.Millisecond)); err == nil {
			t.Errorf("a keeper was started in a directory of uid %d with mode %v", owner, mode)
			c.Close()
		}
	}
}

func TestTheSocketOfADeadKeeperIsNoKeeper(t *testing.T) {
	dir := stateDir(t)
	if _, err := Connect(t.Context(), dir); !errors.Is(err, ErrNoKeeper) {
		t.Errorf("without a directory: %v", err)
	}
	c := start(t, dir)
	must(t, unix.Kill(c.PID(), unix.SIGKILL))
	waitEnd(t, dir)
	if _, err := os.Lstat(filepath.Join(dir, socketName)); err != nil {
		t.Fatal("a killed keeper leaves its socket, or so this test thinks:", err)
	}
	if _, err := c.List(t.Context()); !errors.Is(err, ErrNoKeeper) {
		t.Errorf("a client of the dead keeper gets %v", err)
	}
	if _, err := Connect(t.Context(), dir); !errors.Is(err, ErrNoKeeper) {
		t.Errorf("a new client gets %v", err)
	}
	if again := start(t, dir); again.PID() == c.PID() {
		t.Error("no new keeper was started")
	}
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

func TestManyAtOnceGetOneKeeper(t *testing.T) {
	dir := stateDir(t)
	ctx := t.Context()
	f, key := deleted(t, "shared")
	pids, errs := make(chan int, 8), make(chan error, 8)
	var connected sync.WaitGroup // a keeper ends when its last client has gone
	connected.Add(8)
	for i := range 8 {
		go func() {
			errs <- func() error {
				c, err := Start(ctx, options(dir, time.Minute))
				connected.Done()
				if err != nil {
					return err
				}
				defer c.Close()
				pids <- c.PID()
				connected.Wait()
				owner := strconv.Itoa(i)
				for range 20 {
					if err := c.Hold(ctx, owner, key, nil, f); err != nil {
						return err
					}
					got, err := c.Open(ctx, key)
					if err != nil {
						return err
					}
					got.Close()
					if list, err := c.List(ctx); err != nil || len(list) != 1 || !slices.Contains(list[0].Owners, owner) {
						return fmt.Errorf("%s sees %v, %w", owner, list, err)
					}
					if err := c.Release(ctx, owner, key); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	close(pids)
	first := <-pids
	for pid := range pids {
		if pid != first {
			t.Errorf("keepers %d and %d", first, pid)
		}
	}
}

func TestStartWinsAgainstAKeeperThatIsEnding(t *testing.T) {
	dir := stateDir(t)
	const idle = 50 * time.Millisecond
	for i := range 24 {
		c, err := Start(t.Context(), options(dir, idle))
		must(t, err)
		f, key := deleted(t, "x")
		must(t, c.Hold(t.Context(), "a", key, nil, f))
		must(t, c.Release(t.Context(), "a"))
		must(t, c.Close())
		time.Sleep(idle + time.Duration(i-12)*time.Millisecond/2) // it ends about now
	}
	waitEnd(t, dir)
}

func TestWhoComesWhileTheKeeperEndsIsToldThereIsNone(t *testing.T) {
	path := stateDir(t)
	dir, err := openStateDir(path)
	must(t, err)
	defer dir.Close()
	l, err := listen(dir, socketName)
	must(t, err)
	holds := newHolds()
	k := &server{holdings: holds, log: zerolog.Nop(), join: holds.join, leave: holds.leave}
	if !holds.join() || holds.end() {
		t.Fatal("it ends under a client")
	}
	holds.leave()
	if !holds.end() {
		t.Fatal("it does not end")
	}
	var clients sync.WaitGroup
	clients.Go(func() { k.accept(t.Context(), l, &clients) })
	for _, state := range []string{"ending", "closed"} {
		if _, err := Connect(t.Context(), path); !errors.Is(err, ErrNoKeeper) {
			t.Errorf("%s: %v", state, err)
		}
		l.Close()
	}
	clients.Wait()
}

func TestASecondKeeperEndsAtOnce(t *testing.T) {
	dir := stateDir(t)
	c := start(t, dir)
	command := options(dir, time.Minute).Command
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("it ended with %d, want 3 for ErrRunning", code)
	}
	if _, err := c.List(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
	pid, err := os.ReadFile(filepath.Join(dir, lockName))
	must(t, err)
	if string(pid) != fmt.Sprintln(c.PID()) {
		t.Errorf("the lock file says %q, the keeper is %d", pid, c.PID())
	}
}

func TestOnlySIGTERMAndSIGKILLEndAKeeperThatHoldsSomething(t *testing.T) {
	dir := stateDir(t)
	c := start(t, dir)
	f, key := deleted(t, "x")
	must(t, c.Hold(t.Context(), "a", key, nil, f))
	for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE} {
		must(t, unix.Kill(c.PID(), s))
		if got := content(t, c, key); got != "x" {
			t.Errorf("after %v: %q", s, got)
		}
	}
	must(t, unix.Kill(c.PID(), unix.SIGTERM))
	waitEnd(t, dir)
	log, err := os.ReadFile(filepath.Join(dir, logName))
	must(t, err)
	if !strings.Contains(string(log), "ends on request") {
		t.Errorf("its log does not tell: %s", log)
	}
}

func TestAKeeperTakesNothingOfItsStarterWithIt(t *testing.T) {
	t.Setenv("OS_PASSWORD", "s3cret")
	dir, inherited := stateDir(t), filepath.Join(t.TempDir(), "inherited")
	must(t, os.WriteFile(inherited, nil, 0o600))
	o := options(dir, time.Minute)
	o.Command = append([]string{"/bin/sh", "-c", "exec 9<" + inherited + `; exec "$0" "$@"`}, o.Command...)
	c, err := Start(t.Context(), o)
	must(t, err)
	defer c.Close()
	proc := fmt.Sprintf("/proc/%d/", c.PID())
	env, err := os.ReadFile(proc + "environ")
	must(t, err)
	if strings.Contains(string(env), "s3cret") {
		t.Error("it has the password in its environment")
	}
	for name, want := range map[string]string{"cwd": "/", "fd/0": "/dev/null", "fd/1": "/dev/null", "fd/2": filepath.Join(dir, logName)} {
		if got, err := os.Readlink(proc + name); err != nil || got != want {
			t.Errorf("its %s is %q, %v; want %q", name, got, err, want)
		}
	}
	fds, err := os.ReadDir(proc + "fd")
	must(t, err)
	for _, fd := range fds {
		if to, _ := os.Readlink(proc + "fd/" + fd.Name()); to == inherited {
			t.Errorf("it still has descriptor %s", fd.Name())
		}
	}
	score, err := os.ReadFile(proc + "oom_score_adj")
	must(t, err)
	log, err := os.ReadFile(filepath.Join(dir, logName))
	must(t, err)
	// It needs CAP_SYS_RESOURCE, which root in a container may lack.
	if string(score) != "-1000\n" && !strings.Contains(string(log), "can't hide from the OOM killer") {
		t.Errorf("oom_score_adj is %s, and the log does not say why: %s", score, log)
	}
}

func TestADirectoryPathMayBeLongerThanASocketsCan(t *testing.T) {
	dir := stateDir(t) + strings.Repeat("/directory", 20)
	t.Cleanup(func() {
		if c, err := Connect(context.Background(), dir); err == nil {
			unix.Kill(c.PID(), unix.SIGTERM)
			c.Close()
			waitEnd(t, dir)
		}
	})
	start(t, dir)
}

func TestStartSaysWhyThereIsNoKeeper(t *testing.T) {
	dir := stateDir(t)
	for _, command := range [][]string{nil, {"relative"}, {"/does/not/exist"}} {
		if _, err := Start(t.Context(), Options{Dir: dir, Command: command}); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q: %v", command, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience.Of(3*time.Second))
	defer cancel()
	_, err := Start(ctx, Options{Dir: dir, Command: []string{"/bin/false"}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{"/bin/false: exit status 1", logName} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
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
