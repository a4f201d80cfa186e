package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
