package openstack

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func TestExecPassesOnWhatACommandIsGivenAndHowItEnds(t *testing.T) {
	b := bare(t)
	t.Setenv("GIVEN", "by the caller")
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		args         []string
		stdin        string
		want, stderr string
		code         int
	}{
		"its exit code":       {args: []string{"sh", "-c", "exit 7"}, code: 7},
		"a signal's":          {args: []string{"sh", "-c", "kill -TERM $$"}, code: 143},
		"no such command":     {args: []string{"no-such-command"}, code: 127, stderr: "not found"},
		"not a program":       {args: []string{"/etc/passwd"}, code: 127, stderr: "permission denied"},
		"its standard input":  {args: []string{"cat"}, stdin: "a line\n", want: "a line\n"},
		"its environment":     {args: []string{"printenv", "GIVEN"}, want: "by the caller\n"},
		"the bed's directory": {args: []string{"printenv", DirVariable}, want: b.dir + "\n"},
		"its own variables":   {args: []string{"printenv", "OWN"}, want: "set\n"},
		"the directory":       {args: []string{"sh", "-c", "pwd; ls exec_test.go"}, want: cwd + "\nexec_test.go\n"},
		"nothing of ours":     {args: []string{"printenv", stageVariable}, code: 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code, err := b.Exec(t.Context(), Command{
				Args: test.args, Env: []string{"OWN=set"}, Stdin: strings.NewReader(test.stdin), Stdout: &stdout, Stderr: &stderr,
			})
			if err != nil || code != test.code {
				t.Errorf("exit code %d, %v, want %d", code, err, test.code)
			}
			if stdout.String() != test.want || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("it says %q and %q, want %q and %q", stdout.String(), stderr.String(), test.want, test.stderr)
			}
		})
	}
}

func TestExecWhereTheDirectoryIsNotInsideStartsInTheRoot(t *testing.T) {
	b := bare(t)
	dir := fmt.Sprintf("/proc/%d", os.Getpid()) // of which there are few inside
	t.Chdir(dir)
	if got := output(t, b, "pwd"); got != "/" {
		t.Errorf("from %s it starts in %s", dir, got)
	}
}

// A checkout that was made after the bed, and one that was made anew.
func TestExecSeesTheDirectoryThatItIsCalledFrom(t *testing.T) {
	b := bare(t)
	dir := filepath.Join(t.TempDir(), "checkout")
	for _, content := range []string{"first", "second"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Chdir(dir)
		if got := output(t, b, "cat", "file"); got != content {
			t.Errorf("it reads %q, want %q", got, content)
		}
		t.Chdir("/")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExecInABedThatIsDownSaysSo(t *testing.T) {
	if _, err := Open(Options{Dir: t.TempDir()}).Exec(t.Context(), Command{Args: []string{"true"}}); !errors.Is(err, ErrDown) {
		t.Errorf("it says %v", err)
	}
}

func TestExecPassesSignalsOn(t *testing.T) {
	b := bare(t)
	out, theirs := io.Pipe()
	go func() {
		_, _ = bufio.NewReader(out).ReadString('\n') // it is ready
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, out)
	}()
	script := "trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done"
	if code, err := b.Exec(t.Context(), Command{Args: []string{"sh", "-c", script}, Stdout: theirs}); err != nil || code != 9 {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// On a terminal Ctrl-C is for the command, once, and a shell has job control.
func TestExecOnATerminal(t *testing.T) {
	b := bare(t)
	count := "n=0; trap 'n=$((n+1)); echo got $n' INT; tty -s && echo ready; while [ $n = 0 ]; do sleep 0.02; done; sleep 0.3; exit $((40+n))"
	const job = "sh -c 'echo rea''dy; while :; do sleep 0.1; done'\n"
	shell := []string{"bash", "--norc", "--noediting", "-i"}
	for name, test := range map[string]struct {
		args  []string
		typed []string // what it has said, what is typed then, and so on
		code  int
	}{
		"Ctrl-C comes once":       {[]string{"bash", "-c", count}, []string{"ready", "\x03"}, 41},
		"a shell's jobs":          {shell, []string{"# ", "sleep 600 & kill %1; wait; exit 42\n"}, 42},
		"Ctrl-C to a shell":       {shell, []string{"# ", "\x03", "# ", "exit 43\n"}, 43},
		"Ctrl-C to a shell's job": {shell, []string{"# ", job, "ready", "\x03", "# ", "exit\n"}, 130},
	} {
		t.Run(name, func(t *testing.T) {
			terminal, theirs := openTerminal(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience.Of(time.Minute))
			defer cancel()
			cmd := exec.CommandContext(ctx, "/proc/self/exe", test.args...)
			cmd.Env = append(os.Environ(), helperVariable+"="+b.dir, "PS1=# ", "HOME=/")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			theirs.Close()
			said, from := "", 0
			for at := 0; ; {
				if at < len(test.typed) && strings.Contains(said[from:], test.typed[at]) {
					from = len(said)
					if _, err := io.WriteString(terminal, test.typed[at+1]); err != nil {
						t.Fatal(err)
					}
					at += 2
				}
				some := make([]byte, 1)
				if _, err := terminal.Read(some); err != nil {
					break // EIO when the last one has closed it
				}
				said += string(some)
			}
			err := cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d (%v), want %d; it says %q", code, err, test.code, said)
			}
		})
	}
}

// openTerminal returns both ends of a new terminal (pts(4)).
func openTerminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// reapOrphans makes this process the parent of those whose parents end, and returns what waits for
// those of a name. The machine's process 1 may reap nothing, and a bed can't end while one of its
// processes is a zombie (pid_namespaces(7)).
func reapOrphans(t *testing.T, name string) (wait func()) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
	return func() {
		all, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range all {
			var pid, parent int
			var comm, state string
			text, err := os.ReadFile(path)
			if err == nil {
				_, err = fmt.Sscanf(string(text), "%d %s %s %d", &pid, &comm, &state, &parent)
			}
			if err == nil && comm == "("+name+")" && parent == os.Getpid() {
				_, _ = unix.Wait4(pid, nil, 0, nil)
			}
		}
	}
}

func TestACommandEndsWithItsCallerEvenIfThatIsKilled(t *testing.T) {
	b := bare(t)
	reap := reapOrphans(t, "sleep")
	caller := exec.CommandContext(t.Context(), "/proc/self/exe", "sh", "-c", "echo ready; exec sleep 600")
	caller.Env = append(os.Environ(), helperVariable+"="+b.dir)
	caller.Stderr = t.Output()
	out, err := caller.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := caller.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("it says %q: %v", line, err)
	}
	// One that has ended stays a zombie where the machine's process 1 reaps nothing.
	running := func() string { return output(t, b, "sh", "-c", `awk '$2 == "(sleep)" && $3 != "Z"' /proc/[0-9]*/stat`) }
	patience.Wait(t, "the command", func() bool { return running() != "" })
	if err := caller.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	patience.Wait(t, "the end of the command", func() bool { return running() == "" })
	_ = caller.Wait()
	reap()
}
