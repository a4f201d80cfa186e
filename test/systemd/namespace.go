package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// stageVariable tells the program which of its lives it is in.
const (
	stageVariable = "OS_RESCUE_SYSTEMD_STAGE"
	stageInit     = "init"
	stageInside   = "inside"
)

// Main runs a package's tests under systemd, and exits. Use it as the body of
// TestMain.
func Main(m *testing.M) {
	Enter()
	Exit(m.Run())
}

// Enter returns when this program runs under a systemd of its own. At first it
// runs it again, with the same arguments, in there, and exits with the code that
// the program gives to Exit: call it first of all.
func Enter() {
	var code int
	var err error
	switch os.Getenv(stageVariable) {
	case stageInside:
		if err = WaitReady(); err == nil {
			return
		}
	case stageInit:
		err = initStage()
	default:
		code, err = Outside(append(os.Environ(), stageVariable+"="+stageInit))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "systemd:", err)
		code = 1
	}
	os.Exit(code)
}

// initStage makes the namespaces a machine and becomes systemd.
func initStage() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s=%s is for Enter's own use", stageVariable, stageInit)
	}
	ctx := context.Background()
	o, err := ground.Here(ctx)
	if err != nil {
		return err
	}
	if err := ground.Pivot(ctx, o); err != nil {
		return err
	}
	return Become(stageVariable + "=" + stageInside)
}

// Outside runs this program again with that environment, as process 1 of new
// namespaces, where it is to call Become. It returns what the program that Become
// starts gives to Exit.
func Outside(env []string) (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("a systemd of one's own needs root")
	}
	// The parent's death signal is bound to the thread that forks.
	runtime.LockOSThread()
	exit, theirs, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer exit.Close()
	child := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // it is the program, and ends with it
	child.Args[0] = os.Args[0]
	child.Env = append(env, cgroupVariable+"="+strconv.Itoa(os.Getpid()))
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.ExtraFiles = []*os.File{theirs} // exitFD
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	// A signal to systemd means something else to it: the end is SIGKILL.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	err = child.Start()
	theirs.Close()
	if err != nil {
		return 0, fmt.Errorf("enter new namespaces: %w", err)
	}
	go func() {
		<-signals
		_ = child.Process.Kill()
	}()
	text, err := io.ReadAll(exit)
	_ = child.Process.Kill()
	_ = child.Wait() // all processes inside have ended then (pid_namespaces(7))
	removeCgroup(os.Getpid())
	if err != nil {
		return 0, err
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, errors.New("the program inside died, or systemd could not be started")
	}
	return code, nil
}

// exitFD is where the program's exit code is written to: systemd, which reaps it,
// tells nobody.
const exitFD = 3

// Exit ends the program inside, and all the rest.
func Exit(code int) {
	if _, err := fmt.Fprintln(os.NewFile(exitFD, "exit code"), code); err != nil {
		fmt.Fprintln(os.Stderr, "systemd: say the exit code:", err)
	}
	os.Exit(code)
}

// Become starts this program again, with those variables in its environment as well
// (NAME=value), and makes this process systemd: it returns an error only. It must be process 1 in a mount namespace with
// private mounts, a /proc of its own, and a /run of its own, as Outside has made it.
// The program calls WaitReady first, and Exit at its end.
func Become(variables ...string) error {
	// A control group namespace belongs to a thread.
	runtime.LockOSThread()
	if err := prepare(); err != nil {
		return err
	}
	unix.CloseOnExec(exitFD)
	for _, v := range variables {
		name, value, _ := strings.Cut(v, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	_, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2, exitFD}})
	if err != nil {
		return fmt.Errorf("run the program inside: %w", err)
	}
	return syscall.Exec("/lib/systemd/systemd", []string{
		"/lib/systemd/systemd", "--system", "--unit=" + target, "--log-target=console", "--log-level=info", "--show-status=no",
	}, []string{
		// What systemd does in a container it does not do to the kernel.
		"container=os-rescue-test",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"SYSTEMD_UNIT_PATH=" + unitDir,
		"SYSTEMD_GENERATOR_PATH=" + emptyDir,
		"SYSTEMD_ENVIRONMENT_GENERATOR_PATH=" + emptyDir,
	})
}

// WaitReady returns when systemd has started.
func WaitReady() error {
	unix.CloseOnExec(exitFD)
	err := patience.Retry(func() error {
		out, err := exec.Command("systemctl", "is-system-running").CombinedOutput() //nolint:noctx // it is short
		state := strings.TrimSpace(string(out))
		if state == "running" {
			return nil
		}
		return fmt.Errorf("%s: %w", state, err)
	})
	if err != nil {
		return fmt.Errorf("systemd has not started: %w\n%s", err, Log())
	}
	return nil
}
