package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// monitor is a connection to a QEMU beside libvirt's. It works while libvirtd does not.
// QEMU sends answers and events in the order in which things happened, so whether the
// guest ran when a command was carried out is known for sure.
type monitor struct {
	connection net.Conn
	lines      *bufio.Scanner
	pid        int // of QEMU
	stopped    bool
}

// dial connects to the socket of a QEMU.
func dial(socket string) (*monitor, error) {
	c, err := net.DialTimeout("unix", socket, patience.Limit()) //nolint:noctx // a socket of this host
	if err != nil {
		return nil, err
	}
	m := &monitor{connection: c, lines: bufio.NewScanner(c)}
	m.lines.Buffer(nil, 1<<20)
	if err := m.greet(); err != nil {
		c.Close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) greet() error {
	raw, err := m.connection.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		peer, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	m.pid = int(peer.Pid)
	if err := m.connection.SetDeadline(time.Now().Add(patience.Limit())); err != nil {
		return err
	}
	if !m.lines.Scan() {
		return errors.New("no greeting")
	}
	var status struct {
		Running bool `json:"running"`
	}
	if err := m.do("qmp_capabilities", nil, nil); err != nil {
		return err
	}
	if err := m.do("query-status", nil, &status); err != nil {
		return err
	}
	m.stopped = !status.Running
	return nil
}

// do carries a command out. m.stopped is then whether the guest was stopped meanwhile.
func (m *monitor) do(command string, arguments, into any) error {
	ask := map[string]any{"execute": command}
	if arguments != nil {
		ask["arguments"] = arguments
	}
	text, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	if _, err := m.connection.Write(append(text, '\n')); err != nil {
		return err
	}
	for m.lines.Scan() {
		var message struct {
			Event  string          `json:"event"`
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := json.Unmarshal(m.lines.Bytes(), &message); err != nil {
			return err
		}
		switch {
		case message.Event == "STOP":
			m.stopped = true
		case message.Event == "RESUME":
			m.stopped = false
		case message.Error != nil:
			return fmt.Errorf("%s: %s", command, message.Error.Desc)
		case message.Return != nil && into == nil:
			return nil
		case message.Return != nil:
			return json.Unmarshal(message.Return, into)
		}
	}
	return errors.Join(errors.New("QEMU is gone"), m.lines.Err())
}

// qemuIO carries out a command of qemu-io on a disk's own backend, as its device does.
func (m *monitor) qemuIO(device, command string) error {
	line := fmt.Sprintf("qemu-io -d %s %q", device, command)
	var said string
	if err := m.do("human-monitor-command", map[string]string{"command-line": line}, &said); err != nil {
		return err
	}
	if said != "" {
		return errors.New(said)
	}
	return nil
}

// written returns how many writes of a device have succeeded, and how many have failed.
func (m *monitor) written(device string) (done, failed int, err error) {
	var all []struct {
		Device string `json:"qdev"`
		Stats  struct {
			Writes int `json:"wr_operations"`
			Failed int `json:"failed_wr_operations"`
		} `json:"stats"`
	}
	if err := m.do("query-blockstats", nil, &all); err != nil {
		return 0, 0, err
	}
	for _, d := range all {
		if d.Device == device {
			return d.Stats.Writes, d.Stats.Failed, nil
		}
	}
	return 0, 0, fmt.Errorf("%s has no statistics", device)
}
