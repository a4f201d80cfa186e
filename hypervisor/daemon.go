package hypervisor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// daemonLimit bounds the wait for a connection in DaemonPID.
const daemonLimit = 3 * time.Second

// DaemonPID returns the PID of the process that listens behind the URI's Unix socket, as the
// kernel knows it (SO_PEERCRED, unix(7)). With socket activation that may be systemd's, and
// behind libvirtd's old socket it may be virtproxyd's: the caller looks which process it is.
// 0 when libvirt can't be reached or is not reached by a Unix socket.
func (c *Client) DaemonPID(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, daemonLimit)
	defer cancel()
	conn, err := c.take(ctx)
	if err != nil {
		return 0
	}
	defer c.put(conn)
	return peer()
}

// peer returns the PID behind one of this process's connections to libvirt. libvirt's
// library does not show the descriptor of a connection, and a second connection, made to be
// closed, would be an error in the daemon's log.
func peer() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		addr, err := unix.Getpeername(fd)
		at, ok := addr.(*unix.SockaddrUnix)
		if err != nil || !ok || !isDaemonSocket(at.Name) {
			continue
		}
		if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && cred.Pid > 0 {
			return int(cred.Pid)
		}
	}
	return 0
}

// isDaemonSocket is true for the names of the sockets of libvirt's daemons, wherever they
// are (src/remote/remote_sockets.c, remoteGetUNIXSocketHelper): libvirt-sock,
// virtqemud-sock, those with -ro, and libvirt-admin-sock is none of them.
func isDaemonSocket(path string) bool {
	name := strings.TrimSuffix(filepath.Base(path), "-ro")
	return slices.Contains([]string{"libvirt-sock", "virtqemud-sock"}, name)
}
