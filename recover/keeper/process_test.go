package keeper

import (
	"context"
	"errors"
	"fmt"
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
	d, err := openDoor(path, socketName, lockName)
	must(t, err)
	defer d.close()
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
	clients.Go(func() { k.accept(t.Context(), d.listener, &clients) })
	for _, state := range []string{"ending", "closed"} {
		if _, err := Connect(t.Context(), path); !errors.Is(err, ErrNoKeeper) {
			t.Errorf("%s: %v", state, err)
		}
		d.listener.Close()
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
