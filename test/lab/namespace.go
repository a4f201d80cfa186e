package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The environment of a process inside a lab's namespaces. stageVariable tells
// the program which of its lives it is in; hostVariable names the PID namespace
// of the machine, so that nobody takes the machine for a lab.
const (
	stageVariable = "OS_RESCUE_LAB_STAGE"
	hostVariable  = "OS_RESCUE_LAB_HOST"
	stageInit     = "init"
	stageInside   = "inside"
)

// Main runs a package's tests inside a lab's namespaces, and exits. Use it as
// the body of TestMain.
func Main(m *testing.M) {
	Enter()
	os.Exit(m.Run())
}

// Enter returns inside the lab's namespaces. Outside of them it runs the
// program again, with the same arguments, inside, and exits with its exit code:
// call it first of all. Everything that was started or mounted inside ends with
// the program, even if that is killed.
//
// Three processes take part: the one that the user started waits and passes
// signals on; its child is process 1 of the new PID namespace and reaps (QEMU
// and the keeper are nobody's children); the child of that is the program.
// When process 1 ends, the kernel kills all others and the mounts go with them
// (pid_namespaces(7), mount_namespaces(7)).
//
// Inside, the root file system is a ground of the lab's own (package ground): of the
// machine only what is installed is seen, the program, the source tree around the working
// directory, Go with its caches, and those of dirs that are not empty.
func Enter(dirs ...string) {
	var code int
	var err error
	switch os.Getenv(stageVariable) {
	case stageInside:
		if err = insideLab(); err == nil {
			return
		}
	case stageInit:
		code, err = runInit(dirs)
	default:
		code, err = runOutside()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		code = 1
	}
	os.Exit(code)
}

// insideLab returns an error unless this process is in a lab's namespaces.
func insideLab() error {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return err
	}
	if host := os.Getenv(hostVariable); host == "" || host == own {
		return errors.New("not inside a lab's namespaces: call lab.Enter or lab.Main first")
	}
	return nil
}

// runOutside is the first life of the program.
func runOutside() (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("the lab needs root: it mounts file systems and runs libvirtd")
	}
	host, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return 0, err
	}
	// The parent's death signal is bound to the thread that forks.
	runtime.LockOSThread()

	child := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // it is the program, and ends with it
	child.Args[0] = os.Args[0]
	child.Env = append(os.Environ(), stageVariable+"="+stageInit, hostVariable+"="+host)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	signals := passedOn()
	if err := child.Start(); err != nil {
		return 0, fmt.Errorf("enter new namespaces: %w", err)
	}
	go func() {
		for s := range signals {
			if s != syscall.SIGINT {
				_ = child.Process.Signal(s)
			}
		}
	}()
	err = child.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return exitCode(exit.Sys().(syscall.WaitStatus)), nil
	default:
		return 0, err
	}
}

// runInit is process 1 of the new namespaces.
func runInit(dirs []string) (int, error) {
	if os.Getpid() != 1 {
		return 0, fmt.Errorf("%s=%s is for the lab's own use", stageVariable, stageInit)
	}
	if err := prepareGround(context.Background(), dirs); err != nil {
		return 0, err
	}
	if err := os.Setenv(stageVariable, stageInside); err != nil {
		return 0, err
	}

	// ForkExec and not os/exec: the loop below waits for whoever comes.
	program, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return 0, fmt.Errorf("run the program inside: %w", err)
	}
	signals := passedOn()
	go func() {
		for s := range signals {
			if s != syscall.SIGINT {
				_ = syscall.Kill(program, s.(syscall.Signal))
			}
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the program inside: %w", err)
		case pid == program && (status.Exited() || status.Signaled()):
			return exitCode(status), nil
		}
	}
}

// passedOn returns the signals that the lives of the program pass on. Ctrl-C
// is among them only to be dropped: the terminal sends it to all of them, and
// it is the last one's to end. (To ignore it would be inherited.)
func passedOn() <-chan os.Signal {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	return signals
}

func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
