package recovertest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// logDaemon is the command name of the process that holds console logs.
const logDaemon = "virtlogd"

// The descriptors that a Holder can hold files at: a shell's redirections know one
// digit, and the first three are its own.
const firstFD, lastFD = 3, 9

// Holder is a process that holds files: a shell.
type Holder struct {
	Cmd *exec.Cmd // the shell, which has started
	in  io.WriteCloser
	out *bufio.Reader
	fds map[int]bool // those in use
}

// Hold starts a shell under that command name, with those arguments, which opens
// files, the writable ones for writing, and waits. The caller calls End. It is an
// error when one of them can't be opened.
func Hold(name string, args []string, files []recover.File, attr *unix.SysProcAttr) (*Holder, error) {
	if len(files) > lastFD-firstFD+1 {
		return nil, fmt.Errorf("a fake process can't hold %d files", len(files))
	}
	script := ""
	argv := append([]string{}, args...)
	h := &Holder{fds: map[int]bool{}}
	for n, f := range files {
		mode := "<"
		if f.Writable {
			mode = "<>"
		}
		if f.Role == recover.RoleConsoleLog {
			mode = ">>"
		}
		argv = append(argv, f.Path)
		if mode == "<>" { // the shell would make it
			script += fmt.Sprintf(`[ -e "${%d}" ] || { echo "no file ${%[1]d}" >&2; exit 1; }; `, len(argv))
		}
		script += fmt.Sprintf(`exec %d%s"${%d}"; `, firstFD+n, mode, len(argv))
		h.fds[firstFD+n] = true
	}
	script += `echo ready; while read -r line; do eval "$line"; done`
	if name == logDaemon {
		script = "printf " + logDaemon + " >/proc/self/comm; " + script
	}
	h.Cmd = exec.Command("/bin/sh", append([]string{"-c", script, name}, argv...)...) //nolint:noctx // it ends with End
	h.Cmd.SysProcAttr = attr
	var err error
	if h.in, err = h.Cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := h.Cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	h.Cmd.Stderr = &stderr
	if err := h.Cmd.Start(); err != nil {
		return nil, err
	}
	h.out = bufio.NewReader(out)
	if line, _ := h.out.ReadString('\n'); line != "ready\n" {
		_ = h.in.Close()
		_ = h.Cmd.Wait() // it failed: stderr says why
		return nil, fmt.Errorf("it could not open its files: %s", stderr.String())
	}
	return h, nil
}

// PID is the process's.
func (h *Holder) pid() int { return h.Cmd.Process.Pid }

// End kills the process and waits for its end; of no process it does nothing.
func (h *Holder) End() {
	if h == nil {
		return
	}
	_ = h.Cmd.Process.Kill() // it may have ended
	_ = h.in.Close()
	_ = h.Cmd.Wait() // killed
}

// open has the process open a file for reading and writing.
func (h *Holder) open(path string) (fd int, err error) {
	for fd = firstFD; h.fds[fd]; fd++ {
		if fd == lastFD {
			return 0, fmt.Errorf("%s: the fake process has no descriptor left", path)
		}
	}
	quoted := "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	if err := h.do(fmt.Sprintf("command exec %d<>%s", fd, quoted)); err != nil {
		return 0, fmt.Errorf("open %s: %w", path, err)
	}
	h.fds[fd] = true
	return fd, nil
}

// close has the process close a descriptor.
func (h *Holder) close(fd int) error {
	delete(h.fds, fd)
	return h.do(fmt.Sprintf("command exec %d>&-", fd))
}

// do has the shell run a command.
func (h *Holder) do(command string) error {
	if _, err := fmt.Fprintf(h.in, "%s && echo done || echo failed\n", command); err != nil {
		return err
	}
	answer, err := h.out.ReadString('\n')
	if err == nil && answer != "done\n" {
		err = fmt.Errorf("the process says %q", strings.TrimSpace(answer))
	}
	return err
}

// file opens what the process holds at a descriptor, whatever became of its name.
func (h *Holder) file(fd, flags int) (*os.File, error) {
	return os.OpenFile(fmt.Sprintf("/proc/%d/fd/%d", h.pid(), fd), flags, 0)
}
