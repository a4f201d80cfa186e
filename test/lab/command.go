package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// Result is how a command ended.
type Result struct {
	Stdout string
	Stderr string
	Code   int // 128 + N when signal N ended it
}

// Process is a command that runs.
type Process struct {
	cmd    *exec.Cmd
	stdout safeBuffer
	stderr safeBuffer
	done   chan struct{}
}

// Binary builds the command os-rescue once for the process, with the lab's
// build flags, and returns its path.
func (l *Lab) Binary(t T) string {
	t.Helper()
	path, err := l.build(t.Context())
	if err != nil {
		t.Fatalf("lab: build os-rescue: %v", err)
	}
	return path
}

func (l *Lab) build(ctx context.Context) (string, error) {
	// One for each set of flags, in a directory that outlives this lab.
	sum := sha256.Sum256([]byte(strings.Join(l.options.BuildFlags, "\x00")))
	path := filepath.Join(ground.ScratchDir, "os-rescue-lab-"+hex.EncodeToString(sum[:4]), "os-rescue")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	args := append([]string{"build", "-o", path}, l.options.BuildFlags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/os-rescue")...)
	cmd.Dir = l.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
}

// commandLimit is for a run of os-rescue, and for its way to a point of its journal.
func commandLimit() time.Duration { return patience.Of(5 * time.Minute) }

// Run runs os-rescue with env added to the environment, and returns when it
// has ended. Its standard input is empty and no terminal.
func (l *Lab) Run(t T, env []string, args ...string) Result {
	t.Helper()
	return l.StartCommand(t, env, args...).Wait(t)
}

// StartCommand starts os-rescue as Run does, and does not wait.
func (l *Lab) StartCommand(t T, env []string, args ...string) *Process {
	t.Helper()
	line := append(append(append([]string{}, l.enter...), l.Binary(t)), args...)
	return StartProcess(t, ground.ScratchDir, env, line[0], line[1:]...)
}

// Contain makes the lab a host whose libvirt and QEMUs live in a container, as Kolla's: from
// now on os-rescue runs on a host of its own, beside libvirt, the QEMUs and the test.
func (l *Lab) Contain(t T) {
	t.Helper()
	l.enter = hostBeside(t)
}

// StartProcess starts a program in a directory, with env added to the
// environment and an empty standard input that is no terminal, and does not
// wait. What ends it is up to the caller.
func StartProcess(t T, dir string, env []string, program string, args ...string) *Process {
	t.Helper()
	cmd := exec.Command(program, args...) //nolint:noctx // it may outlive the test: its cleanups come first
	p := &Process{cmd: cmd, done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	// A keeper that inherits the pipes must not keep Wait waiting.
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("lab: start %s: %v", filepath.Base(program), err)
	}
	go func() {
		_ = p.cmd.Wait() // the state says how it ended
		close(p.done)
	}()
	return p
}

// At starts an os-rescue that knows failpoints, with the environment that start is
// given, lets it come to a point of its journal, does something there, and lets it
// go on to its end.
func At(t T, point string, start func(env []string) *Process, do func()) Result {
	t.Helper()
	dir, err := os.MkdirTemp("", "at-")
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	script := fmt.Sprintf("#!/bin/sh\ntouch %[1]s/reached\nuntil [ -e %[1]s/go ]; do sleep 0.02; done\n", dir)
	if err := os.WriteFile(filepath.Join(dir, "wait"), []byte(script), 0o700); err != nil {
		t.Fatalf("lab: %v", err)
	}
	p := start([]string{"OS_RESCUE_FAILPOINT=" + point + "=exec:" + filepath.Join(dir, "wait")})
	err = patience.RetryFor(commandLimit(), func() error {
		select {
		case <-p.done:
			return nil
		default:
		}
		_, err := os.Stat(filepath.Join(dir, "reached"))
		return err
	})
	if _, reached := os.Stat(filepath.Join(dir, "reached")); err != nil || reached != nil {
		stdout, stderr := p.Output()
		t.Fatalf("lab: os-rescue did not come to %s:\n%s\n%s", point, stdout, stderr)
	}
	do()
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatalf("lab: %v", err)
	}
	return p.Wait(t)
}

// PID returns the pid of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal; to a process that has ended it does nothing.
func (p *Process) Signal(t T, signal syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("lab: %v to os-rescue: %v", signal, err)
	}
}

// Output returns what the process has written so far to stdout and stderr.
func (p *Process) Output() (stdout, stderr string) {
	return p.stdout.String(), p.stderr.String()
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process.
func (p *Process) Wait(t T) Result {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(commandLimit()):
		_ = p.cmd.Process.Kill()
		t.Fatalf("lab: os-rescue %s does not end:\n%s", strings.Join(p.cmd.Args[1:], " "), p.stderr.String())
	}
	return Result{
		Stdout: p.stdout.String(), Stderr: p.stderr.String(),
		Code: exitCode(p.cmd.ProcessState.Sys().(syscall.WaitStatus)),
	}
}

// safeBuffer can be read while a command writes to it.
type safeBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
