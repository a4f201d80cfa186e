// Package e2e holds the end-to-end cases: the built os-rescue against a real
// libvirtd, virtlogd and QEMU in the lab, with a guest that can tell whether it
// lost anything.
package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// run runs os-rescue and fails the test unless it ends with that exit code.
func run(t *testing.T, l *lab.Lab, code int, args ...string) lab.Result {
	t.Helper()
	return runEnv(t, l, nil, code, args...)
}

func runEnv(t *testing.T, l *lab.Lab, env []string, code int, args ...string) lab.Result {
	t.Helper()
	r := l.Run(t, env, args...)
	if r.Code != code {
		t.Fatalf("os-rescue %s: exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), r.Code, code, r.Stdout, r.Stderr)
	}
	return r
}

// scan returns what os-rescue scan says, by UUID.
func scan(t *testing.T, l *lab.Lab) map[string]recover.Instance {
	t.Helper()
	var report recover.Report
	decode(t, run(t, l, 0, "scan", "--output", "json").Stdout, &report)
	byUUID := map[string]recover.Instance{}
	for _, i := range report.Instances {
		byUUID[i.UUID] = i
	}
	return byUUID
}

func decode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, text)
	}
}
