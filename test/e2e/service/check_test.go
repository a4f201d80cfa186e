package service

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/systemd"
)

const (
	checkUnit = "os-rescue-check.service"
	textfiles = "/var/lib/prometheus/node-exporter"
)

// collector makes the directory of node_exporter's textfile collector.
func collector(t *testing.T) {
	t.Helper()
	for dir := textfiles; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Dir(dir)); err == nil {
			if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
				t.Cleanup(func() { _ = os.RemoveAll(dir) })
			}
			break
		}
	}
	must(t, os.MkdirAll(textfiles, 0o755))
}

// checked starts the check as its timer does, and returns the metrics that it wrote.
func checked(t *testing.T) string {
	t.Helper()
	file := filepath.Join(textfiles, "os-rescue.prom")
	must(t, os.RemoveAll(file))
	if out, err := exec.Command("systemctl", "start", checkUnit).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, systemd.Log())
	}
	text, err := os.ReadFile(file)
	must(t, err)
	st, err := os.Stat(file)
	must(t, err)
	if st.Mode().Perm() != 0o644 {
		t.Errorf("the exporter can't read a file of mode %o", st.Mode().Perm())
	}
	return string(text)
}

// The unit as it is installed, in its sandbox, writes the metrics of what it finds.
func TestTheCheckUnitFindsAnAccidentWithAGuardAndWithout(t *testing.T) {
	for name, guarded := range map[string]bool{"without a guard": false, "with a guard": true} {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t, lab.Options{})
			guest := l.Boot(t, lab.Spec{})
			collector(t)
			install(t, l, checkUnit, "")
			if guarded {
				install(t, l, unit, "")
				systemd.Ctl(t, "start", unit)
				await(t, "the first scan", func(s guard.Status) bool { return !s.Scanned.IsZero() })
			}
			if text := checked(t); !strings.Contains(text, "os_rescue_check_level 0") {
				t.Errorf("nothing is lost:\n%s", text)
			}
			must(t, os.Remove(guest.Disk))
			if text := checked(t); !strings.Contains(text, "os_rescue_check_level 2") ||
				!strings.Contains(text, `verdict="recoverable"} 1`) {
				t.Errorf("a disk is lost:\n%s", text)
			}
		})
	}
}
