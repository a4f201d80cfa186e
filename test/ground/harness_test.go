package ground

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// roleVariable says what this program is. The one that was started runs itself as a
// "machine", which is a ground already: what the tests remove, rename and rewrite is
// that one's. From there it runs itself as each "ground".
const (
	roleVariable    = "GROUND_TEST_ROLE"
	optionsVariable = "GROUND_TEST_OPTIONS"
)

func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv(roleVariable); role {
	case "":
		cmd := apart("machine")
		cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
		err = cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
	case "machine":
		if err = beMachine(); err == nil {
			os.Exit(m.Run())
		}
	case "ground":
		err = beGround()
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// apart is this program in new mount and PID namespaces.
func apart(role string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append(os.Environ(), env...), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func beMachine() error {
	o, err := Here(context.Background())
	if err != nil {
		return err
	}
	o.Groups = []string{"kvm"}
	o.KVM = "kvm"
	return Pivot(context.Background(), o)
}

// answer is what came of a command.
type answer struct {
	Output string
	Error  string
}

// beGround stands on a ground and runs the commands that it reads.
func beGround() error {
	var o Options
	if err := json.Unmarshal([]byte(os.Getenv(optionsVariable)), &o); err != nil {
		return err
	}
	if err := Pivot(context.Background(), o); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(answer{Output: "standing"}); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var a answer
		text, err := exec.Command("bash", "-c", in.Text()).CombinedOutput()
		a.Output = strings.TrimSpace(string(text))
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return in.Err()
}

// standing is a ground of another process.
type standing struct {
	in  io.Writer
	out *json.Decoder
}

// stand gives the test a ground, which ends with it.
func stand(t *testing.T, o Options) *standing {
	t.Helper()
	text, err := json.Marshal(o)
	do(t, err)
	cmd := apart("ground", optionsVariable+"="+string(text))
	in, err := cmd.StdinPipe()
	do(t, err)
	out, err := cmd.StdoutPipe()
	do(t, err, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	g := &standing{in, json.NewDecoder(out)}
	if a := g.read(t); a.Output != "standing" {
		t.Fatalf("the ground says %+v", a)
	}
	return g
}

func (g *standing) read(t *testing.T) (a answer) {
	t.Helper()
	if err := g.out.Decode(&a); err != nil {
		t.Fatalf("the ground is gone: %v", err)
	}
	return a
}

// try runs a shell's line on the ground.
func (g *standing) try(t *testing.T, line string) answer {
	t.Helper()
	_, err := io.WriteString(g.in, line+"\n")
	do(t, err)
	return g.read(t)
}

// run is try for what must work.
func (g *standing) run(t *testing.T, line string) string {
	t.Helper()
	a := g.try(t, line)
	if a.Error != "" {
		t.Fatalf("on the ground: %s: %s\n%s", line, a.Error, a.Output)
	}
	return a.Output
}

// machine runs a shell's line on the machine.
func machine(t *testing.T, line string) string {
	t.Helper()
	out, err := exec.Command("bash", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("on the machine: %s: %v\n%s", line, err, out)
	}
	return strings.TrimSpace(string(out))
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
