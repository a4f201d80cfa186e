package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// daemon is a child of the lab that serves on a socket.
type daemon struct {
	name   string
	socket string // it answers there
	cmd    *exec.Cmd
	done   chan struct{}
	err    error // of Wait, once done is closed
}

// startDaemon runs a daemon in the foreground and returns when its socket answers.
func startDaemon(ctx context.Context, socket, name string, args ...string) (*daemon, error) {
	// Whoever connects to the last one's socket must not take it for this one.
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	cmd := exec.Command("/usr/sbin/"+name, args...) //nolint:noctx // it ends with the lab, after the test's cleanups
	d := &daemon{name: name, socket: socket, cmd: cmd, done: make(chan struct{})}
	// A session of its own: Ctrl-C is for the program, and a daemon has none.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab: start %s: %w", name, err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	var dialer net.Dialer
	err := patience.Retry(func() error {
		select {
		case <-d.done:
			return nil
		case <-ctx.Done():
			return nil
		default:
		}
		connection, err := dialer.DialContext(ctx, "unix", socket)
		if err == nil {
			connection.Close()
		}
		return err
	})
	select {
	case <-d.done:
		return nil, fmt.Errorf("lab: %s ended at once: %w\n%s", name, d.err, tail("/var/log/libvirt/"+name+".log", 10))
	default:
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %s does not answer: %w\n%s", name, err, tail("/var/log/libvirt/"+name+".log", 10))
	}
	return d, nil
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

// stop sends the signal and waits for the end.
func (d *daemon) stop(signal syscall.Signal) error {
	_ = d.cmd.Process.Signal(signal) // it may have ended already
	select {
	case <-d.done:
		return nil
	case <-time.After(patience.Limit()):
		return fmt.Errorf("lab: %s does not end", d.name)
	}
}

// answers is false for a daemon that has ended; one that was killed a moment ago may not be known
// to have, and nobody has its socket any more.
func (d *daemon) answers(ctx context.Context) bool {
	var dialer net.Dialer
	err := patience.Retry(func() error {
		if !d.running() {
			return nil
		}
		connection, err := dialer.DialContext(ctx, "unix", d.socket)
		if err == nil {
			connection.Close()
		}
		return err
	})
	return err == nil && d.running()
}

func (d *daemon) running() bool {
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}
