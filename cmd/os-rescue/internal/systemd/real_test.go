package systemd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	realsystemd "github.com/os-rescue/os-rescue/test/systemd"
)

// holding is the report of the service under test.
type holding struct {
	PID   int
	Files map[string]string // the files of the descriptors that it inherited, by name
}

// hold is a service that stores descriptors of deleted files, COUNT of them with
// names of LENGTH characters, unless it inherited some.
func hold() error {
	n, err := New()
	if err != nil {
		return err
	}
	dir := os.Getenv("DIR")
	now := holding{PID: os.Getpid(), Files: map[string]string{}}
	for _, f := range n.Inherited() {
		content := make([]byte, 100)
		length, _ := f.ReadAt(content, 0)
		now.Files[f.Name()] = string(content[:length])
		f.Close()
	}
	count, _ := strconv.Atoi(os.Getenv("COUNT"))
	length, _ := strconv.Atoi(os.Getenv("LENGTH"))
	for i := 0; len(now.Files) == 0 && i < count; i++ {
		name := fmt.Sprintf("%0*d", length, i)
		f, err := deleted(dir, "content of "+name)
		if err != nil {
			return err
		}
		if err := n.StoreFD(name, f); err != nil {
			return err
		}
		f.Close()
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1)
	text, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "holding"), text, 0o600); err != nil {
		return err
	}
	if err := n.Barrier(context.Background()); err != nil {
		return err
	}
	if err := n.Status(fmt.Sprintf("%d files, watchdog %s", count, n.WatchdogInterval())); err != nil {
		return err
	}
	if err := n.Ready(); err != nil {
		return err
	}
	for {
		switch <-signals {
		case syscall.SIGTERM:
			return n.Stopping()
		case syscall.SIGUSR1:
			if err := n.RemoveFD(fmt.Sprintf("%0*d", length, 0)); err != nil {
				return err
			}
			if err := n.Barrier(context.Background()); err != nil {
				return err
			}
			if err := n.Status("removed"); err != nil {
				return err
			}
		case syscall.SIGHUP:
			if err := n.Reloading(); err != nil {
				return err
			}
			if err := n.Ready(); err != nil {
				return err
			}
		}
	}
}

const holdUnit = "hold.service"

// installHold installs and starts that service.
func installHold(t *testing.T, count, length int, settings string) (dir string) {
	t.Helper()
	self, err := os.Executable()
	do(t, err)
	dir = t.TempDir()
	realsystemd.Install(t, holdUnit, fmt.Sprintf(`
[Unit]
DefaultDependencies=no
StartLimitIntervalSec=0
[Service]
Type=notify
NotifyAccess=main
ExecStart=%s
ExecReload=/bin/kill -HUP $MAINPID
Environment=%s=hold DIR=%s COUNT=%d LENGTH=%d
FileDescriptorStoreMax=65535
Restart=always
RestartSec=10ms
%s
`, self, roleVariable, dir, count, length, settings))
	realsystemd.Ctl(t, "start", holdUnit)
	return dir
}

// held waits for the service's next process and returns what it inherited.
func held(t *testing.T, dir string, last int) holding {
	t.Helper()
	var now holding
	for now.PID == last || now.PID == 0 {
		realsystemd.WaitFor(t, holdUnit, "ActiveState", "active")
		text, err := os.ReadFile(filepath.Join(dir, "holding"))
		do(t, err, json.Unmarshal(text, &now))
	}
	realsystemd.WaitFor(t, holdUnit, "MainPID", strconv.Itoa(now.PID))
	realsystemd.WaitFor(t, holdUnit, "SubState", "running")
	return now
}

// Only the store has descriptors of the deleted files: they come back only because
// systemd kept them.
func TestSystemdKeepsDeletedFilesNoMatterHowTheServiceEnds(t *testing.T) {
	const count = 20
	dir := installHold(t, count, 3, "WatchdogSec=5s")
	now := held(t, dir, 0)
	if len(now.Files) != 0 {
		t.Fatalf("the first process inherited %v", now.Files)
	}
	if got := realsystemd.Show(t, holdUnit, "StatusText"); got != "20 files, watchdog 5s" {
		t.Errorf("status %q", got)
	}
	kill := func(s syscall.Signal) func() {
		return func() { do(t, syscall.Kill(now.PID, s)) }
	}
	ends := []struct {
		name string
		end  func()
	}{
		{"restart", func() { realsystemd.Ctl(t, "restart", holdUnit) }},
		{"kill -9", func() { kill(unix.SIGKILL)() }},
		{"crash", func() { kill(unix.SIGSEGV)() }},
		{"end of its own", func() { kill(unix.SIGTERM)() }},
		{"watchdog", func() {}}, // the service does not feed it
		{"reexecution of systemd and kill -9", func() {
			realsystemd.Ctl(t, "daemon-reexec")
			kill(unix.SIGKILL)()
		}},
	}
	for _, e := range ends {
		e.end()
		now = held(t, dir, now.PID)
		if len(now.Files) != count {
			t.Fatalf("after %s the next process inherited %d files: %v", e.name, len(now.Files), now.Files)
		}
		for name, content := range now.Files {
			if content != "content of "+name {
				t.Errorf("after %s %s has %q", e.name, name, content)
			}
		}
	}

	realsystemd.Ctl(t, "reload", holdUnit)
	do(t, syscall.Kill(now.PID, syscall.SIGUSR1))
	realsystemd.WaitFor(t, holdUnit, "StatusText", "removed")
	if got := realsystemd.Show(t, holdUnit, "NFileDescriptorStore"); got != strconv.Itoa(count-1) {
		t.Errorf("after RemoveFD systemd has %s descriptors", got)
	}
}

// With Preserve, which systemd has since 254, a stop keeps them too. Before that, a
// stop drops them, unless the service has handed them to another process.
func TestAStopDropsTheFilesUnlessSystemdCanPreserveThem(t *testing.T) {
	dir := installHold(t, 3, 3, "FileDescriptorStorePreserve=yes")
	now := held(t, dir, 0)
	realsystemd.Ctl(t, "stop", holdUnit)
	realsystemd.Ctl(t, "start", holdUnit)
	now = held(t, dir, now.PID)
	first, _, _ := strings.Cut(strings.TrimPrefix(realsystemd.Ctl(t, "--version"), "systemd "), " ")
	version, err := strconv.Atoi(first)
	do(t, err)
	if kept := len(now.Files); version >= 254 && kept != 3 || version < 254 && kept != 0 {
		t.Errorf("systemd %d kept %d of 3 files over a stop", version, kept)
	}
}

// With as many descriptors as StoreFD accepts, the service starts again.
func TestAFullStoreStartsAgain(t *testing.T) {
	// Not with short names: systemd's time grows with the square of the number.
	for _, length := range []int{127, 255} {
		count := maxNames / (length + 1)
		dir := installHold(t, count, length, "LimitNOFILE=20000")
		now := held(t, dir, 0)
		if got := realsystemd.Show(t, holdUnit, "NFileDescriptorStore"); got != strconv.Itoa(count) {
			t.Fatalf("systemd has %s descriptors, want %d", got, count)
		}
		do(t, syscall.Kill(now.PID, syscall.SIGKILL))
		now = held(t, dir, now.PID)
		var names []string
		for name := range now.Files {
			names = append(names, name)
		}
		if slices.Sort(names); len(names) != count || names[count-1] != fmt.Sprintf("%0*d", length, count-1) {
			t.Errorf("the next process inherited %d files, want %d", len(names), count)
		}
		realsystemd.Ctl(t, "stop", holdUnit)
	}
}
