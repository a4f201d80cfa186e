package openstack

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func TestAProcessIsNamedByItsPidAndItsStart(t *testing.T) {
	const rest = " 10 11 0 -1 4194560 5 6 7 8 9 10 11 20 0 1 0 4711 999 1 2"
	tests := map[string]struct {
		text string
		want stat
		bad  bool
	}{
		"plain":                       {text: "12 (nova-compute) S 1 12" + rest, want: stat{process{12, 4711}, 'S', 10}},
		"spaces and parens in a name": {text: "12 (a) R (b c) Z 1 12" + rest, want: stat{process{12, 4711}, 'Z', 10}},
		"empty":                       {bad: true},
		"no name":                     {text: "12 S 1 12" + rest, bad: true},
		"cut off":                     {text: "12 (nova) S 1 12 10", bad: true},
		"no pid":                      {text: "x (nova) S 1 12" + rest, bad: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat(test.text)
			if (err != nil) != test.bad || got != test.want {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (nova-compute) S 1 12 10 11 0 -1 4194560 5 6 7 8 9 10 11 20 0 1 0 4711 999 1 2")
	f.Add("1 (a) b) R ")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parseStat(text); err == nil && !strings.Contains(text, string(s.state)) {
			t.Errorf("%+v of %q", s, text)
		}
	})
}

// leader starts a shell that leads a session with a child in it, and returns it
// and the child.
func leader(t *testing.T, script string) (process, process) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("sh", "-c", "sleep 600 & echo $! > "+dir+"/child.part; mv "+dir+"/child.part "+dir+"/child; "+script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	own, err := lookAt(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	t.Cleanup(func() { _ = own.stop(0) })
	var text []byte
	err = patience.Retry(func() (err error) { text, err = os.ReadFile(dir + "/child"); return err })
	if err != nil {
		t.Fatalf("the child never came: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	child, err := lookAt(pid)
	if err != nil {
		t.Fatal(err)
	}
	return own.process, child.process
}

func TestStoppingAServiceEndsWhatItStarted(t *testing.T) {
	p, child := leader(t, "wait")
	if !p.alive() || !child.alive() {
		t.Fatal("they do not run")
	}
	if err := p.stop(patience.Of(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if p.alive() || child.alive() {
		t.Errorf("alive: the leader %v, its child %v", p.alive(), child.alive())
	}
}

func TestWhatADeadServiceLeftIsEndedToo(t *testing.T) {
	p, child := leader(t, "exit 0")
	patience.Wait(t, "the leader's end", func() bool { return !p.alive() })
	if !child.alive() {
		t.Fatal("the child ended with its leader")
	}
	if err := p.stop(0); err != nil {
		t.Fatal(err)
	}
	if child.alive() {
		t.Error("the child still runs")
	}
}

func TestAServiceThatIgnoresTheSignalIsKilled(t *testing.T) {
	p, child := leader(t, "trap '' TERM; while :; do sleep 600; done")
	if err := p.stop(50 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if p.alive() || child.alive() {
		t.Error("they still run")
	}
}

func TestAProcessThatGotAnOldPidIsLeftAlone(t *testing.T) {
	p, child := leader(t, "wait")
	old := process{PID: p.PID, Start: p.Start - 1}
	if old.alive() {
		t.Error("the old process is taken for alive")
	}
	if err := old.stop(0); err != nil {
		t.Fatal(err)
	}
	if !p.alive() || !child.alive() {
		t.Error("another process than the pid file's was killed")
	}
}

func TestAPidFileIsReadBackAndNothingElseIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nova-api.pid")
	if _, err := readPID(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with no file: %v", err)
	}
	want := process{PID: 4711, Start: 12345678}
	if err := writePID(path, want); err != nil {
		t.Fatal(err)
	}
	if got, err := readPID(path); err != nil || got != want {
		t.Errorf("read back %+v, %v", got, err)
	}
	for _, text := range []string{"", "12\n", "x y\n", "-5 12\n", "1 2\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readPID(path); err == nil {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}
