package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
	"github.com/os-rescue/os-rescue/test/systemd"
)

const (
	unit     = "os-rescue-guard.service"
	stateDir = "/var/lib/os-rescue"
)

// install makes one of the project's own units known, as `make install` writes it, for the
// lab's os-rescue.
func install(t *testing.T, l *lab.Lab, unit, more string) {
	t.Helper()
	prefix, err := os.MkdirTemp("/opt", "prefix-") // /tmp is a guard's to see, not to run from
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(prefix) })
	must(t, os.MkdirAll(filepath.Join(prefix, "sbin"), 0o755))
	if out, err := exec.Command("cp", l.Binary(t), filepath.Join(prefix, "sbin/os-rescue")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"Makefile", "etc/systemd/" + unit} { // see units in test/systemd
		_, err := os.ReadFile(filepath.Join("../../..", name))
		must(t, err)
	}
	if out, err := exec.Command("make", "-s", "-C", "../../..", "install-units", "PREFIX="+prefix, "DESTDIR=").CombinedOutput(); err != nil {
		t.Fatalf("make install-units: %v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(prefix, "lib/systemd/system", unit))
	must(t, err)
	systemd.Install(t, unit, string(text)+"\n[Unit]\nDefaultDependencies=no\n[Service]\n"+more+"\n")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// guarded returns what the guard says, once one answers.
func guarded(t *testing.T) guard.Status {
	t.Helper()
	s, err := guard.Ask(t.Context(), stateDir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func await(t *testing.T, what string, ok func(guard.Status) bool) guard.Status {
	t.Helper()
	var s guard.Status
	defer func() {
		if t.Failed() {
			data, _ := json.MarshalIndent(s, "", " ")
			t.Logf("the guard says %s", data)
		}
	}()
	patience.Wait(t, what, func() bool {
		s = guarded(t)
		return ok(s)
	})
	return s
}

// deleted is a file that was deleted while the guard held it.
type deleted struct {
	key, content string
}

// remove notes what a file is, and deletes it.
func remove(t *testing.T, path string) deleted {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	key, err := keeper.Key(f)
	must(t, err)
	must(t, os.Remove(path))
	return deleted{key, string(content)}
}

// heldStill checks that the guard gives each deleted file's content.
func heldStill(t *testing.T, gone []deleted) {
	t.Helper()
	c, err := keeper.ConnectGuard(t.Context(), stateDir)
	must(t, err)
	defer c.Close()
	for _, d := range gone {
		f, err := c.Open(t.Context(), d.key)
		if err != nil {
			t.Fatalf("a deleted file is not held any more: %v", err)
		}
		content := make([]byte, len(d.content))
		if _, err := f.ReadAt(content, 0); err != nil || string(content) != d.content {
			t.Errorf("it gives %d bytes that are not those of the file: %v", len(content), err)
		}
		f.Close()
	}
}

// The unit as it is installed, its sandbox, and systemd's store: through ten
// restarts, one of them kill -9, with files coming and going all the while, no
// deleted file loses its hold. Then guests come back from what went through all of that.
func TestTheGuardLosesNoFileInTenRestarts(t *testing.T) {
	l := lab.New(t, lab.Options{BuildFlags: []string{"-tags=failpoint"}})
	guests := []*lab.Instance{l.Boot(t, lab.Spec{}), l.Boot(t, lab.Spec{})}
	install(t, l, unit, "Environment=OS_RESCUE_GUARD_GRACE=24h")
	// Instances that are off, of which libvirt knows nothing: their files alone.
	var dirs []string
	for n := range 24 {
		dir := filepath.Join(lab.InstancesDir, fmt.Sprintf("5f1c2a00-0000-4000-8000-%012d", n))
		must(t, os.Mkdir(dir, 0o755))
		for _, name := range []string{"disk", "disk.eph0", "disk.config"} {
			must(t, os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, "%s of %d", name, n), 0o600))
		}
		dirs = append(dirs, dir)
	}
	systemd.Ctl(t, "start", unit)
	await(t, "the first scan", func(s guard.Status) bool { return !s.Scanned.IsZero() && s.Held.Files >= 24*3+4 })

	// The load: an instance that comes and goes.
	ctx, stop := context.WithCancel(t.Context())
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		for n := 0; ctx.Err() == nil; n++ {
			dir := filepath.Join(lab.InstancesDir, fmt.Sprintf("5f1c2a00-1111-4000-8000-%012d", n%50))
			_ = os.Mkdir(dir, 0o755)
			for i := range 5 {
				_ = os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), []byte("x"), 0o600)
			}
			_ = os.RemoveAll(dir)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	defer func() { stop(); <-loaded }()

	var gone []deleted
	pid := systemd.Show(t, unit, "MainPID")
	for n := range 10 {
		for _, name := range []string{"disk", "disk.eph0", "disk.config"} {
			gone = append(gone, remove(t, filepath.Join(dirs[n], name)))
		}
		if n == 4 {
			var main int
			_, err := fmt.Sscan(pid, &main)
			must(t, err)
			must(t, syscall.Kill(main, syscall.SIGKILL))
			patience.Wait(t, "its return after kill -9", func() bool {
				return systemd.Show(t, unit, "MainPID") != pid && systemd.Show(t, unit, "ActiveState") == "active"
			})
		} else {
			systemd.Ctl(t, "restart", unit)
		}
		now := systemd.Show(t, unit, "MainPID")
		if now == pid {
			t.Fatalf("restart %d: it is still process %s", n, pid)
		}
		pid = now
		heldStill(t, gone)
	}
	stop()
	<-loaded

	// The accident, in the middle of a restart; the guests are ended besides.
	beats := []int{guests[0].LastBeat(), guests[1].LastBeat()}
	l.DeleteTree(t)
	systemd.Ctl(t, "restart", unit)
	for _, g := range guests {
		l.Virsh(t, "destroy", g.Name)
		l.Virsh(t, "undefine", g.Name)
	}
	systemd.Ctl(t, "restart", unit)
	await(t, "the incidents", func(s guard.Status) bool { return len(s.Incidents) == 2 })
	r := l.Run(t, nil, "--instance", guests[0].UUID, "--instance", guests[1].UUID, "--offline", "--yes")
	if r.Code != 0 {
		t.Fatalf("the rescue ended with %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	for n, g := range guests {
		boot := g.WaitBoot(t, 2)
		if boot.Payload != "ok" || boot.LastBeat < beats[n] || boot.Gaps != 0 {
			t.Errorf("%s came back with %+v; it had said beat %d", g.Name, boot, beats[n])
		}
	}
	await(t, "the end of the incidents", func(s guard.Status) bool { return len(s.Incidents) == 0 })
	if problems := guarded(t).Problems; len(problems) > 0 {
		t.Errorf("it has problems: %v", problems)
	}

	// A stop in the middle of an incident: systemd before 254 forgets what it kept.
	must(t, os.RemoveAll(filepath.Dir(guests[0].Disk)))
	await(t, "the next incident", func(s guard.Status) bool { return len(s.Incidents) == 1 })
	systemd.Ctl(t, "stop", unit)
	c, err := keeper.Connect(t.Context(), stateDir)
	if err != nil {
		t.Fatalf("nobody holds what was deleted: %v\n%s", err, systemd.Log())
	}
	holds, err := c.List(t.Context())
	c.Close()
	if err != nil || len(holds) == 0 {
		t.Errorf("the keeper holds %v: %v", holds, err)
	}
}

// A watchdog that bites, and a unit that says what it holds.
func TestTheGuardTellsSystemdThatItLives(t *testing.T) {
	l := lab.New(t, lab.Options{BuildFlags: []string{"-tags=failpoint"}})
	l.Boot(t, lab.Spec{})
	watchdog := patience.Of(6 * time.Second)
	install(t, l, unit, fmt.Sprintf("WatchdogSec=%dms", watchdog.Milliseconds()))
	systemd.Ctl(t, "start", unit)
	await(t, "the first scan", func(s guard.Status) bool { return !s.Scanned.IsZero() })
	pid := systemd.Show(t, unit, "MainPID")
	patience.Wait(t, "a status that says what it holds", func() bool {
		return strings.Contains(systemd.Show(t, unit, "StatusText"), "files held")
	})
	time.Sleep(watchdog * 3 / 2) // in which a guard that does not feed it would be started anew
	if now := systemd.Show(t, unit, "MainPID"); now != pid {
		t.Fatalf("it was restarted although it lives:\n%s", systemd.Log())
	}
	systemd.Ctl(t, "reload", unit)
	var main int
	_, err := fmt.Sscan(pid, &main)
	must(t, err)
	must(t, syscall.Kill(main, syscall.SIGSTOP))
	patience.Wait(t, "the guard that hangs is started anew", func() bool { return systemd.Show(t, unit, "MainPID") != pid })
	if err := syscall.Kill(main, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the one that hung: %v", err)
	}
}
