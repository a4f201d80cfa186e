package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	realsystemd "github.com/os-rescue/os-rescue/test/systemd"
)

// roleVariable makes the test binary a service.
const roleVariable = "SYSTEMD_TEST_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleVariable) {
	case "":
		realsystemd.Main(m)
	case "store":
		err = storeAndHang()
	case "inherit":
		err = inherit()
	case "flood":
		err = flood()
	case "hold":
		err = hold()
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// deleted returns an open file with that content and no name.
func deleted(dir, content string) (*os.File, error) {
	path := filepath.Join(dir, "deleted")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return f, os.Remove(path)
}

// storeAndHang is a service that stores two deleted files and waits to be killed.
func storeAndHang() error {
	n, err := New()
	if err != nil {
		return err
	}
	for _, name := range []string{"disk 1", "disk-2"} {
		f, err := deleted(os.Getenv("DIR"), "content of "+name)
		if err != nil {
			return err
		}
		if err := n.StoreFD(name, f); err != nil {
			return err
		}
	}
	if err := n.Barrier(context.Background()); err != nil {
		return err
	}
	fmt.Println("stored")
	select {}
}

// inherit is its next process: it prints what it inherited, and what its child has.
func inherit() error {
	n, err := New()
	if err != nil {
		return err
	}
	for _, f := range n.Inherited() {
		content := make([]byte, 100)
		length, err := f.ReadAt(content, 0)
		if !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading %s: %w", f.Name(), err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		fmt.Printf("%s: %s, %d links\n", f.Name(), content[:length], st.Nlink)
	}
	if again := n.Inherited(); len(again) != 0 {
		return fmt.Errorf("inherited again: %v", again)
	}
	child := exec.Command("sh", "-c", "env | grep -E 'LISTEN|NOTIFY'; ls -l /proc/self/fd | grep deleted")
	child.Stdout = os.Stdout
	if err := child.Run(); child.ProcessState.ExitCode() != 1 {
		return fmt.Errorf("the child: %w", err)
	}
	return nil
}

// flood stores a given number of descriptors.
func flood() error {
	n, err := New()
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(os.Getenv("COUNT"))
	if err != nil {
		return err
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	fmt.Println("begun")
	for i := range count {
		if err := n.StoreFD(strconv.Itoa(i), f); err != nil {
			return err
		}
	}
	return nil
}

// The test plays systemd: the first process is killed, and the second gets the
// descriptors that were kept.
func TestTheNextProcessGetsWhatTheKilledOneStored(t *testing.T) {
	m := listen(t, "")
	first := exec.Command("/proc/self/exe")
	first.Env = append(os.Environ(), roleVariable+"=store", "NOTIFY_SOCKET="+m.name, "DIR="+t.TempDir())
	out, err := first.StdoutPipe()
	do(t, err, first.Start())
	t.Cleanup(func() { _ = first.Process.Kill(); _ = first.Wait() })
	stored := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		stored <- line
	}()

	var names []string
	var files []*os.File
	for range 2 {
		text, f := m.receive()
		name, ok := strings.CutPrefix(text, "FDSTORE=1\nFDNAME=")
		name, polled := strings.CutSuffix(name, "\nFDPOLL=0")
		if !ok || !polled || f == nil {
			t.Fatalf("systemd was told %q with %v", text, f)
		}
		names, files = append(names, name), append(files, f)
	}
	text, barrier := m.receive()
	if text != "BARRIER=1" || barrier == nil {
		t.Fatalf("systemd was told %q with %v", text, barrier)
	}
	select {
	case line := <-stored:
		t.Fatalf("the service did not wait for systemd, and said %q", line)
	case <-time.After(100 * time.Millisecond):
	}
	do(t, barrier.Close())
	if line := <-stored; line != "stored\n" {
		t.Fatalf("the service said %q", line)
	}
	do(t, first.Process.Kill())
	_ = first.Wait()

	self, err := os.Executable()
	do(t, err)
	second := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, self)
	second.Env = append(os.Environ(), roleVariable+"=inherit", "NOTIFY_SOCKET="+m.name,
		"LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	second.ExtraFiles = files
	second.Stderr = os.Stderr
	text2, err := second.Output()
	do(t, err)
	want := "disk 1: content of disk 1, 0 links\ndisk-2: content of disk-2, 0 links\n"
	if string(text2) != want {
		t.Errorf("the second process had %q, want %q", text2, want)
	}
}

// Descriptors meant for another process are not touched.
func TestDescriptorsForAnotherProcessAreNotTaken(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_FDNAMES", "disk")
	n, err := New()
	do(t, err)
	if files := n.Inherited(); len(files) != 0 {
		t.Errorf("took %v", files)
	}
}

// systemd may not read yet while a starting guard stores everything that it found.
func TestThousandsAreStoredWhileSystemdIsBusy(t *testing.T) {
	m := listen(t, "")
	n := m.notifier()
	f, err := deleted(t.TempDir(), "content")
	do(t, err)
	defer f.Close()
	const many = 5000
	done := make(chan error, 1)
	go func() {
		for i := range many {
			if err := n.StoreFD(strconv.Itoa(i), f); err != nil {
				done <- fmt.Errorf("number %d: %w", i, err)
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		t.Fatalf("the socket was never full, error %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	for i := range many {
		text, got := m.receive()
		if text != fmt.Sprintf("FDSTORE=1\nFDNAME=%d\nFDPOLL=0", i) || got == nil {
			t.Fatalf("number %d: systemd was told %q with %v", i, text, got)
		}
		got.Close()
	}
	do(t, <-done)
}

func TestASystemdThatDoesNotReadIsAnError(t *testing.T) {
	m := listen(t, "")
	n := m.notifier()
	n.limit = 50 * time.Millisecond
	f, err := os.Open("/dev/null")
	do(t, err)
	defer f.Close()
	for range 10_000 {
		if err = n.StoreFD("null", f); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v, want os.ErrDeadlineExceeded", err)
	}
	if err := n.Watchdog(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v, want os.ErrDeadlineExceeded", err)
	}
}

// The kernel allows no more descriptors in transit, counting all processes of a user,
// than a process may have open.
func TestStoringWaitsWhileTooManyDescriptorsAreInTransit(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	do(t, err)
	null, err := os.Open("/dev/null")
	do(t, err)
	defer null.Close()
	const most = 20
	for range most + 5 {
		do(t, unix.Sendmsg(fds[0], []byte("x"), unix.UnixRights(int(null.Fd())), nil, 0))
	}
	m := listen(t, "")
	self, err := os.Executable()
	do(t, err)
	// Without privileges, because the limit does not apply to privileged processes.
	service := exec.Command("prlimit", fmt.Sprintf("--nofile=%d", most), "setpriv", "--bounding-set=-all", "--inh-caps=-all", self)
	service.Env = append(os.Environ(), roleVariable+"=flood", "COUNT=1", "NOTIFY_SOCKET="+m.name)
	out, err := service.StdoutPipe()
	do(t, err, service.Start())
	lines := bufio.NewReader(out)
	if line, _ := lines.ReadString('\n'); line != "begun\n" {
		t.Fatalf("the service said %q", line)
	}
	do(t, m.conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	if n, _, err := m.conn.ReadFrom(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the limit was not reached: %d bytes came, error %v", n, err)
	}
	do(t, unix.Close(fds[0]), unix.Close(fds[1])) // the descriptors in transit are gone
	if text, f := m.receive(); !strings.HasPrefix(text, "FDSTORE=1\n") || f == nil {
		t.Errorf("systemd was told %q with %v", text, f)
	}
	rest, _ := io.ReadAll(lines)
	if err := service.Wait(); err != nil {
		t.Errorf("%v, %s", err, rest)
	}
}

func TestRemoveFDRemovesAName(t *testing.T) {
	m := listen(t, "")
	n := m.notifier()
	do(t, n.RemoveFD("disk"))
	m.want("FDSTOREREMOVE=1\nFDNAME=disk")
}

func TestTheWaitForSystemdEndsWithItsContext(t *testing.T) {
	m := listen(t, "")
	n := m.notifier()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Barrier(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestOnlyNamesThatSystemdAcceptsAreStored(t *testing.T) {
	m := listen(t, "")
	n := m.notifier()
	f, err := os.Open("/dev/null")
	do(t, err)
	defer f.Close()
	for _, name := range []string{"", "a:b", "a\nb", "\x7f", "é", strings.Repeat("x", 256)} {
		if err := n.StoreFD(name, f); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("stored as %q: error %v", name, err)
		}
		if err := n.RemoveFD(name); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("removed %q: error %v", name, err)
		}
	}
	for _, name := range []string{"a b", "~", strings.Repeat("x", 255)} {
		do(t, n.StoreFD(name, f))
		if text, got := m.receive(); got == nil || !strings.Contains(text, "FDNAME="+name+"\n") {
			t.Errorf("systemd was told %q", text)
		}
	}
}

// No process starts with an environment variable that is too long. It must start with
// the names that StoreFD accepts, and must not start with one more.
func TestStoreFDStoresNoMoreThanTheNextProcessCanStartWith(t *testing.T) {
	m := listen(t, "")
	n := m.notifier()
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, _, err := m.conn.ReadFrom(buf); err != nil {
				return
			}
		}
	}()
	f, err := os.Open("/dev/null")
	do(t, err)
	defer f.Close()
	var names []string
	store := func() error {
		name := fmt.Sprintf("%0250d", len(names))
		err := n.StoreFD(name, f)
		if err == nil {
			names = append(names, name)
		}
		return err
	}
	for err == nil {
		err = store()
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("error %v, want ErrFull", err)
	}
	start := func(names []string) error {
		cmd := exec.Command("true")
		cmd.Env = []string{"LISTEN_FDNAMES=" + strings.Join(names, ":")}
		return cmd.Run()
	}
	if err := start(names); err != nil {
		t.Errorf("with %d names: %v", len(names), err)
	}
	if os.Getpagesize() == 4096 {
		if err := start(append(names, strings.Repeat("x", 250))); !errors.Is(err, unix.E2BIG) {
			t.Errorf("with one name more than %d: error %v, want E2BIG", len(names), err)
		}
	}
	do(t, n.RemoveFD(names[0]))
	names = names[1:]
	do(t, n.StoreFD(strings.Repeat("y", 250), f))
	if err := store(); !errors.Is(err, ErrFull) {
		t.Errorf("error %v, want ErrFull again", err)
	}
}
