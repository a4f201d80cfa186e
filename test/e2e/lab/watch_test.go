package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// Nova stops an instance that it believes to be off about 15 s after its domain
// ended. A process of nova-compute's name and a destroy stand in for it here; the
// real one is in test/e2e/openstack.
func TestADomainThatNovaStopsAgainIsStartedOnceMore(t *testing.T) {
	v, p := watched(t, 40*time.Second)
	v.isBack(t, 1)
	v.Destroy(t)
	v.isBack(t, 1)
	r := p.Wait(t)
	if r.Code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	got := of(t, report(t, r), v)
	if got.Outcome != recover.OutcomeRescued || len(got.Notes) != 1 {
		t.Errorf("the report says %s", asJSON(t, got))
	}
	says(t, got.Notes[0], "started again")
	v.intact(t)
}

// When Nova has it as stopped, it ends whatever libvirt starts: that is said, and
// is no success.
func TestADomainThatNovaKeepsStoppingIsNoSuccess(t *testing.T) {
	v, p := watched(t, 2*time.Minute)
	v.isBack(t, 1)
	v.Destroy(t)
	v.isBack(t, 1)
	v.Destroy(t)
	r := p.Wait(t)
	if r.Code != 1 {
		t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	got := of(t, report(t, r), v)
	if got.Outcome != recover.OutcomeFailed {
		t.Errorf("the report says %s", asJSON(t, got))
	}
	says(t, got.Error, "os-rescue reboot", "--state SHUTOFF", "No data is lost")
	if state := v.State(t); state != "shut off" {
		t.Errorf("it is %s", state)
	}
}

// watched starts an offline rescue of a guest beside a nova-compute, which watches
// that guest so long: it must have booted within that time.
func watched(t *testing.T, limit time.Duration) (*victim, *lab.Process) {
	t.Helper()
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{})
	nova := filepath.Join(t.TempDir(), "nova-compute")
	binary, err := os.ReadFile("/bin/sleep")
	if err == nil {
		err = os.WriteFile(nova, binary, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	compute := exec.CommandContext(t.Context(), nova, "600")
	if err := compute.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = compute.Process.Kill()
		_ = compute.Wait()
	})
	l.DeleteTree(t)
	return v, l.StartCommand(t, []string{"OS_RESCUE_WATCH=" + patience.Of(limit).String()}, "--all", "--offline", "--yes", "--output", "json")
}
