package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is systemd's end of the notify socket.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	name string // for NOTIFY_SOCKET
}

// listen opens a notify socket; an empty name makes one in the file system.
func listen(t *testing.T, name string) *manager {
	t.Helper()
	if name == "" {
		// Not t.TempDir: a socket's path must fit into 108 bytes (unix(7)).
		dir, err := os.MkdirTemp("/tmp", "notify-")
		do(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		name = filepath.Join(dir, "notify")
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &manager{t, conn, name}
}

// receive returns the next notification and the descriptor that came with it.
func (m *manager) receive() (string, *os.File) {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		m.t.Fatal(err)
	}
	buf, oob := make([]byte, 4097), make([]byte, unix.CmsgSpace(16))
	n, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		m.t.Fatal(err)
	}
	if n > 4096 {
		m.t.Fatal("systemd would drop the notification: it is too long")
	}
	var files []*os.File
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		m.t.Fatal(err)
	}
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	switch len(files) {
	case 0:
		return string(buf[:n]), nil
	case 1:
		m.t.Cleanup(func() { files[0].Close() })
		return string(buf[:n]), files[0]
	}
	m.t.Fatalf("%d descriptors came with %q", len(files), buf[:n])
	return "", nil
}

func (m *manager) want(text string) {
	m.t.Helper()
	if got, f := m.receive(); got != text || f != nil {
		m.t.Errorf("systemd was told %q, descriptor %v; want %q and none", got, f, text)
	}
}

// notifier is one for this process as if that manager had started it.
func (m *manager) notifier() *Notifier {
	m.t.Helper()
	m.t.Setenv("NOTIFY_SOCKET", m.name)
	n, err := New()
	if err != nil {
		m.t.Fatal(err)
	}
	if _, set := os.LookupEnv("NOTIFY_SOCKET"); set {
		m.t.Error("NOTIFY_SOCKET is left to children")
	}
	return n
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestSystemdIsToldTheStateOfTheService(t *testing.T) {
	for name, socket := range map[string]string{
		"socket in the file system": "",
		"abstract socket":           fmt.Sprintf("@os-rescue-test-%d", os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			m := listen(t, socket)
			n := m.notifier()
			if !n.Enabled() {
				t.Error("not enabled")
			}
			for want, tell := range map[string]func() error{
				"READY=1":                      n.Ready,
				"STOPPING=1":                   n.Stopping,
				"WATCHDOG=1":                   n.Watchdog,
				"STATUS=12 files held, 0 lost": func() error { return n.Status("12 files held,\n 0 lost\n") },
				"STATUS=x" + strings.Repeat("é", maxStatus/2-1): func() error { return n.Status("x" + strings.Repeat("é", maxStatus)) },
			} {
				do(t, tell())
				m.want(want)
			}
		})
	}
}

func TestReloadingSaysWhenItBegan(t *testing.T) {
	m := listen(t, "")
	n := m.notifier()
	var before, after unix.Timespec
	do(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &before))
	do(t, n.Reloading())
	do(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &after))
	text, _ := m.receive()
	var at int64
	if _, err := fmt.Sscanf(text, "RELOADING=1\nMONOTONIC_USEC=%d", &at); err != nil || at < before.Nano()/1000 || at > after.Nano()/1000 {
		t.Errorf("systemd was told %q between %d and %d, error %v", text, before.Nano()/1000, after.Nano()/1000, err)
	}
}

func TestWithoutSystemdNothingIsToldAndNothingFails(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n, err := New()
	do(t, err)
	f, err := os.Open("/dev/null")
	do(t, err)
	defer f.Close()
	do(t, n.Ready(), n.Status("fine"), n.Reloading(), n.Watchdog(), n.StoreFD("a", f), n.RemoveFD("a"), n.Barrier(t.Context()), n.Stopping())
	if n.Enabled() || n.WatchdogInterval() != 0 || len(n.Inherited()) != 0 {
		t.Errorf("enabled %v, watchdog %s", n.Enabled(), n.WatchdogInterval())
	}
	if err := n.StoreFD("a:b", f); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a bad name: error %v", err)
	}
}

func TestASystemdThatIsGoneIsAnError(t *testing.T) {
	m := listen(t, "")
	n := m.notifier()
	do(t, m.conn.Close())
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "READY=1") {
		t.Errorf("error %v", err)
	}
}

func TestAnEnvironmentThatIsNotSystemdsIsRefused(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "vsock:2:1234")
	if _, err := New(); err == nil {
		t.Error("a socket of another kind was taken")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := New(); err == nil {
		t.Error("a watchdog interval that is no number was taken")
	}
}

func TestTheWatchdogIntervalIsThisProcesss(t *testing.T) {
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"2500000", "", 2500 * time.Millisecond},
		{"2500000", fmt.Sprint(os.Getpid()), 2500 * time.Millisecond},
		{"2500000", "1", 0},
	} {
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		n, err := New()
		do(t, err)
		if n.WatchdogInterval() != tt.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %s, want %s", tt.usec, tt.pid, n.WatchdogInterval(), tt.want)
		}
		for _, name := range []string{"WATCHDOG_USEC", "WATCHDOG_PID"} {
			if _, set := os.LookupEnv(name); set {
				t.Errorf("%s is left to children", name)
			}
		}
	}
}
