package qcow2

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// confined runs qemu-img on bytes that a guest wrote: as another user (root only
// where QEMU runs as root) without capabilities, in its own network, IPC and PID
// namespaces (a live rescue gives it the account of every QEMU, which it could kill
// otherwise), with no_new_privs, few system calls (forbidden), an empty environment
// and limits on memory, CPU time and files. It dies with this process and with the
// context.
type confined struct {
	account Account
	memory  int64         // bytes of address space; 4 GiB when 0
	cpu     time.Duration // no limit when 0
	files   []*os.File    // its descriptors from 3 on

	connections []*os.File // those of the files that were opened for it
}

// disconnect closes this process's part of the connections.
func (c *confined) disconnect() {
	for _, f := range c.connections {
		f.Close()
	}
}

// command returns prlimit, which runs setpriv, which runs qemu-img. ErrNoQemuImg
// when one of them is not installed.
func (c confined) command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	var paths [3]string
	for i, tool := range []string{"prlimit", "setpriv", "qemu-img"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoQemuImg, err)
		}
		paths[i] = path
	}
	if c.memory == 0 {
		c.memory = 4 << 30
	}
	limits := []string{fmt.Sprintf("--as=%d", c.memory), "--nofile=1024", "--core=0", "--fsize=0"}
	if c.cpu > 0 {
		limits = append(limits, fmt.Sprintf("--cpu=%d", max(1, int64(c.cpu.Seconds()))))
	}
	all := append(limits, "--", paths[1], "--no-new-privs")
	if c.account.UID == 0 {
		// Otherwise root would get all capabilities back when it starts qemu-img.
		// libvirt's QEMU has none either.
		all = append(all, "--securebits=+noroot,+noroot_locked")
	}
	all = append(all, "--", paths[2])
	cmd := exec.CommandContext(ctx, paths[0], append(all, args...)...)
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.ExtraFiles = c.files
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: c.account.UID, Gid: c.account.GID},
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID,
	}
	return cmd, nil
}
