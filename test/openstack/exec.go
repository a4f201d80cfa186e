package openstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/ground"
)

// namespaces are those of a bed.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// Command is a command for Exec.
type Command struct {
	Args []string // the program, looked up inside, and its arguments
	Env  []string // beside the caller's environment
	// The caller's own where nil.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// exec is Bed.Exec.
func (m machine) exec(ctx context.Context, command Command) (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	defer keepTerminal()()

	here, err := ground.Here(ctx)
	if err != nil {
		return 0, err
	}
	err = m.run(shown(here.Dirs), func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, "/proc/self/exe")
		cmd.Args = command.Args
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		if command.Stdin != nil {
			cmd.Stdin = command.Stdin
		}
		if command.Stdout != nil {
			cmd.Stdout = command.Stdout
		}
		if command.Stderr != nil {
			cmd.Stderr = command.Stderr
		}
		cmd.Env = m.environment(stageExec, command.Env)
		return cmd
	}, func(p *os.Process, ended <-chan struct{}) {
		for {
			select {
			case s := <-signals:
				if !fromTerminal(s) {
					_ = p.Signal(s) // it may have ended
				}
			case <-ended:
				return
			}
		}
	})
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status, _ := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// environment is the caller's, as far as it makes sense inside, for a stage of this
// program.
func (m machine) environment(stage string, more []string) []string {
	env := append(os.Environ(), DirVariable+"="+m.dir, "TMPDIR="+ground.ScratchDir, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	return slices.Concat(env, more, []string{stageVariable + "=" + stage})
}

// The exit codes of a command that can't be run, as a shell has them.
const (
	codeNotFound = 127
	codeCannot   = 126
)

// becomeCommand makes this process, which is inside, the command that it has the
// arguments of. It returns only when that can't be, with the exit code.
func becomeCommand() (int, error) {
	runtime.LockOSThread()
	if err := endWithParent(); err != nil {
		return codeCannot, err
	}
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return codeNotFound, err
	}
	return codeCannot, fmt.Errorf("%s: %w", path, syscall.Exec(path, os.Args, os.Environ()))
}

// endWithParent has the process that the calling thread becomes end with its parent,
// which is outside. Package syscall's Pdeathsig takes a parent in another PID
// namespace for a dead one.
func endWithParent() error {
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0)
}

// fromTerminal is true for a signal that a terminal sends to all of the foreground,
// the command among it: it has it already.
func fromTerminal(s os.Signal) bool {
	if s != syscall.SIGINT && s != syscall.SIGQUIT {
		return false
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}

// keepTerminal returns what gives the terminal back to this process: a shell inside
// takes it, and can't give it back to a process group that it does not see.
func keepTerminal() (restore func()) {
	foreground, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	if err != nil || foreground != unix.Getpgrp() {
		return func() {}
	}
	return func() {
		// From the background this asks for a SIGTTOU, which would stop the caller.
		signal.Ignore(syscall.SIGTTOU)
		defer signal.Reset(syscall.SIGTTOU)
		_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, foreground)
	}
}

// run runs a stage of this program inside the bed, to its end. show are directories of
// the machine to be seen inside. build makes the command; started is called when it
// runs, and is to return when it has ended.
func (m machine) run(show []string, build func() *exec.Cmd, started func(*os.Process, <-chan struct{})) error {
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	var p process
	var trees []tree
	inside := m.inside()
	if !inside {
		if p, err = m.initProcess(); err != nil {
			return err
		}
		if trees, err = openTrees(show); err != nil {
			return err
		}
		defer closeTrees(trees)
	}
	result := make(chan error, 1)
	go func() {
		// The thread stays in the bed: it ends with this goroutine, which does not unlock it.
		runtime.LockOSThread()
		result <- func() error {
			if !inside {
				if err := p.enter(); err != nil {
					return err
				}
			}
			for _, t := range trees {
				if err := t.attach(); err != nil {
					return err
				}
			}
			cmd := build()
			if cmd.Dir = cwd; !isDir(cwd) {
				cmd.Dir = "/"
			}
			cmd.Env = append(cmd.Env, "PWD="+cmd.Dir)
			// Its parent is this thread, which waits here.
			if err := cmd.Start(); err != nil {
				return err
			}
			ended := make(chan struct{})
			defer close(ended)
			go started(cmd.Process, ended)
			return cmd.Wait()
		}()
	}()
	return <-result
}

// enter has the calling thread act in a process's namespaces, and its children live
// in them (setns(2)).
func (p process) enter() error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return fmt.Errorf("openstack: process 1 of the bed: %w", err)
	}
	defer unix.Close(fd)
	if !p.alive() {
		return ErrDown
	}
	// What a thread shares with others keeps it from a mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(fd, namespaces); err != nil {
		return fmt.Errorf("openstack: enter the bed: %w", err)
	}
	return nil
}

// tree is a copy of the machine's mounts at a path, to be attached inside.
type tree struct {
	path string
	fd   int
}

func openTrees(paths []string) ([]tree, error) {
	paths = slices.Clone(paths)
	slices.Sort(paths) // a parent comes before what is in it
	var found []tree
	for _, path := range slices.Compact(paths) {
		if _, err := os.Stat(path); err != nil || path == "/" {
			continue // Here may name what is not there
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			closeTrees(found)
			return nil, fmt.Errorf("openstack: show %s inside the bed: %w", path, err)
		}
		found = append(found, tree{path, fd})
	}
	return found, nil
}

func closeTrees(trees []tree) {
	for _, t := range trees {
		unix.Close(t.fd)
	}
}

// attach attaches the tree unless there is something at its path already.
func (t tree) attach() error {
	var st unix.Stat_t
	err := unix.Stat(t.path, &st)
	if err == nil && st.Nlink > 0 {
		return nil
	}
	if err == nil {
		// It was deleted on the machine, and another one made in its place.
		if err := unix.Unmount(t.path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("openstack: %s inside the bed is deleted: %w", t.path, err)
		}
	}
	err = os.MkdirAll(t.path, 0o755)
	if err == nil {
		err = unix.MoveMount(t.fd, "", unix.AT_FDCWD, t.path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if err == nil {
		// What is mounted below it on the machine later is not for the bed.
		err = unix.Mount("", t.path, "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err != nil {
		return fmt.Errorf("openstack: show %s inside the bed: %w", t.path, err)
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Enter returns inside the bed that the options name. Outside it brings the bed up,
// runs this program again inside with the same arguments, and exits with its exit
// code: call it first of all in main or TestMain. The bed stays up.
func Enter(options Options) {
	Begin()
	b := Open(options)
	if b.machine.inside() {
		return
	}
	code, err := enterWith(b, options)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func enterWith(b *Bed, options Options) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if _, err := Up(ctx, options); err != nil {
		return 0, err
	}
	return b.Exec(context.WithoutCancel(ctx), Command{Args: append([]string{"/proc/self/exe"}, os.Args[1:]...)})
}
