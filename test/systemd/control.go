package systemd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// T is what this package needs of a *testing.T or *testing.B.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
	Failed() bool
	Context() context.Context
}

// Install makes a unit known until the test ends: then it is killed, with every
// process of its control group, and forgotten. A test that failed logs what systemd
// said.
func Install(t T, name, text string) {
	t.Helper()
	path := filepath.Join(unitDir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatalf("systemd: %v", err)
	}
	Ctl(t, "daemon-reload")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", Log())
		}
		for _, args := range [][]string{
			{"kill", "--kill-whom=all", "--signal=SIGKILL", name}, {"stop", name}, {"reset-failed", name},
		} {
			_ = exec.Command("systemctl", args...).Run() //nolint:noctx // the test's context has ended
		}
		_ = os.Remove(path)
		_ = exec.Command("systemctl", "daemon-reload").Run() //nolint:noctx // the test's context has ended
	})
}

// Ctl runs systemctl, and returns what it printed.
func Ctl(t T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// Show returns a property of a unit: MainPID, NFileDescriptorStore, Result.
func Show(t T, unit, property string) string {
	t.Helper()
	return Ctl(t, "show", "--value", "--property="+property, unit)
}

// WaitFor waits until a property of a unit has that value.
func WaitFor(t T, unit, property, value string) {
	t.Helper()
	err := patience.Retry(func() error {
		if got := Show(t, unit, property); got != value {
			return fmt.Errorf("%s of %s is %q, not %q", property, unit, got, value)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, Log())
	}
}

// Log returns what systemd has said until now.
func Log() string {
	text, err := os.ReadFile(logFile)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
