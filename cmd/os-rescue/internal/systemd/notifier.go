package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

const (
	// sendLimit bounds one notification: systemd reads them one by one, between
	// other work such as a reload of every unit.
	sendLimit = 15 * time.Second
	// retryPause is for a limit of the kernel that no call can wait for.
	retryPause = 5 * time.Millisecond
	// maxStatus is in bytes. systemd drops notifications of more than 4096 bytes
	// (NOTIFY_BUFFER_MAX in its src/shared/notify-recv.c, src/core/manager.c).
	maxStatus = 1024
)

// Notifier talks to the systemd that started this process. Without systemd it does
// nothing and returns no errors. It is safe for concurrent use.
type Notifier struct {
	socket   string // empty: no systemd
	limit    time.Duration
	watchdog time.Duration

	mu        sync.Mutex
	inherited []*os.File
	names     map[string]int // how many descriptors the store has, by name
	used      int            // bytes that the names take in the environment
}

// New takes over what systemd gave to this process, so that its children do not get
// it: NOTIFY_SOCKET, WATCHDOG_*, and LISTEN_* with the descriptors, which become
// close-on-exec. It is called once, early. An error means that the environment does
// not come from systemd.
func New() (*Notifier, error) {
	n := &Notifier{socket: os.Getenv("NOTIFY_SOCKET"), limit: sendLimit, names: map[string]int{}}
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		return nil, err
	}
	if n.socket != "" && n.socket[0] != '/' && n.socket[0] != '@' {
		return nil, fmt.Errorf("NOTIFY_SOCKET is %q: neither a path nor an abstract socket", n.socket)
	}
	watchdog, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		return nil, err
	}
	n.watchdog = watchdog
	n.inherited = activation.Files(true)
	for _, f := range n.inherited {
		n.count(f.Name(), 1)
	}
	return n, nil
}

// Enabled is true if systemd started this process.
func (n *Notifier) Enabled() bool { return n.socket != "" }

// Ready says that the service has started, or has finished reloading.
func (n *Notifier) Ready() error { return n.send(daemon.SdNotifyReady) }

// Stopping says that the service is about to end.
func (n *Notifier) Stopping() error { return n.send(daemon.SdNotifyStopping) }

// Reloading says that the service rereads its configuration; Ready follows. The message
// has the time that Type=notify-reload needs (systemd.service(5)) and Type=notify
// ignores.
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("tell systemd: %w", os.NewSyscallError("clock_gettime", err))
	}
	return n.send(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// Status is the line that `systemctl status` shows; it is cut at 1 KiB.
func (n *Notifier) Status(text string) error {
	text = strings.Join(strings.Fields(text), " ")
	text = text[:min(len(text), maxStatus)]
	return n.send("STATUS=" + strings.ToValidUTF8(text, "")) // whole characters only
}

// Watchdog says that the service is alive. See WatchdogInterval.
func (n *Notifier) Watchdog() error { return n.send(daemon.SdNotifyWatchdog) }

// WatchdogInterval is how long systemd waits for Watchdog before it kills the service;
// 0 is no limit. sd_watchdog_enabled(3) advises to call Watchdog twice in that time.
func (n *Notifier) WatchdogInterval() time.Duration { return n.watchdog }

func (n *Notifier) send(lines ...string) error { return n.sendWith(nil, lines...) }

// sendWith sends one notification, with a descriptor if f is not nil.
func (n *Notifier) sendWith(f *os.File, lines ...string) error {
	if n.socket == "" {
		return nil
	}
	err := n.deliver([]byte(strings.Join(lines, "\n")), f)
	if err != nil {
		return fmt.Errorf("tell systemd %s: %w", lines[0], err)
	}
	return nil
}

// deliver waits while the socket is full. The socket is connected, so that the kernel
// reports when there is space again (unix_dgram_poll in its net/unix/af_unix.c).
func (n *Notifier) deliver(message []byte, f *os.File) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline := time.Now().Add(n.limit)
	if err := conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if f == nil {
		return sendmsg(conn, message, nil)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var sent error
		err := raw.Control(func(fd uintptr) { sent = sendmsg(conn, message, unix.UnixRights(int(fd))) })
		if err != nil {
			return err
		}
		// More descriptors than RLIMIT_NOFILE are in transit, counting all processes of
		// this user (unix(7), "ETOOMANYREFS").
		if !errors.Is(sent, unix.ETOOMANYREFS) || time.Now().After(deadline) {
			return sent
		}
		time.Sleep(retryPause)
	}
}

// sendmsg sends on a connected datagram socket, which net's WriteMsgUnix refuses.
func sendmsg(conn *net.UnixConn, message, rights []byte) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		for {
			sent = unix.Sendmsg(int(fd), message, rights, nil, unix.MSG_NOSIGNAL)
			if !errors.Is(sent, unix.EINTR) {
				return !errors.Is(sent, unix.EAGAIN)
			}
		}
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("sendmsg", sent)
}
