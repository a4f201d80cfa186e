package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// units are the project's, installed with a PREFIX of the test's in which os-rescue
// is this test binary.
func units(t *testing.T) (dir string) {
	t.Helper()
	self, err := os.Executable()
	do(t, err)
	prefix := t.TempDir()
	do(t, os.Mkdir(filepath.Join(prefix, "sbin"), 0o755), os.Symlink(self, filepath.Join(prefix, "sbin", "os-rescue")))
	// go test takes a result from its cache unless a file changed that the test read.
	for _, name := range []string{"Makefile", "os-rescue-guard.service", "os-rescue-check.service", "os-rescue-check.timer"} {
		if name != "Makefile" {
			name = "etc/systemd/" + name
		}
		_, err := os.ReadFile(filepath.Join("../..", name))
		do(t, err)
	}
	cmd := exec.Command("make", "-s", "-C", "../..", "install-units", "PREFIX="+prefix, "DESTDIR=", "SYSCONFDIR="+prefix+"/etc")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make install-units: %v\n%s", err, out)
	}
	return filepath.Join(prefix, "lib/systemd/system")
}

func TestTheUnitsAreGoodAndSandboxed(t *testing.T) {
	dir := units(t)
	files, err := filepath.Glob(dir + "/*")
	do(t, err)
	if len(files) != 3 {
		t.Fatalf("installed %v", files)
	}
	for _, file := range files {
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
		do(t, err)
		for line := range strings.Lines(string(out)) {
			// Of the units of the machine, which it reads as well; and what is for
			// systemd 254 and later.
			if strings.Contains(line, "os-rescue") && !strings.Contains(line, "Unknown key 'FileDescriptorStorePreserve'") &&
				!strings.Contains(line, "Unknown key name 'FileDescriptorStorePreserve'") {
				t.Errorf("%s: %s", filepath.Base(file), line)
			}
		}
		if !strings.HasSuffix(file, ".service") {
			continue
		}
		// Exposure, of 100. It has to read every process and speak to the network.
		const most = "34"
		out, err = exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+most, file).CombinedOutput()
		if err != nil {
			t.Errorf("%s is exposed by more than %s of 100: %v\n%s", filepath.Base(file), most, err, out)
		}
	}
}

// What goes wrong in one of them takes no room from the guests, and shows nobody what it writes.
func TestTheServicesAreBounded(t *testing.T) {
	dir := units(t)
	for _, name := range []string{"os-rescue-guard.service", "os-rescue-check.service"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		do(t, err)
		for _, line := range []string{"MemoryMax=256M", "Environment=GOMEMLIMIT=112MiB", "TasksMax=256", "UMask=0077", "LimitCORE=0"} {
			if !slices.Contains(strings.Split(string(text), "\n"), line) {
				t.Errorf("%s has no %s", name, line)
			}
		}
	}
}

// A check that finds something has not failed.
func TestACheckThatWarnsIsNoFailureOfItsUnit(t *testing.T) {
	text, err := os.ReadFile(units(t) + "/os-rescue-check.service")
	do(t, err)
	for code, good := range map[string]bool{"0": true, "1": true, "2": true, "3": false} {
		// The unit's own, but for the check, which is one with that answer.
		ran := filepath.Join(t.TempDir(), "ran")
		Install(t, "os-rescue-check.service", string(text)+fmt.Sprintf(`
[Unit]
DefaultDependencies=no
[Service]
StateDirectory=
ReadWritePaths=%s
ExecStart=
ExecStart=/bin/sh -c 'touch %s; exit %s'
`, filepath.Dir(ran), ran, code))
		err := exec.Command("systemctl", "start", "os-rescue-check.service").Run()
		if (err == nil) != good {
			t.Errorf("exit code %s: systemctl start: %v", code, err)
		}
		if _, err := os.Stat(ran); err != nil {
			t.Errorf("the check did not run: %v", err)
		}
	}
}
