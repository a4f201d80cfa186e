package plan_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// One that was never started has none yet.
func TestAMissingVariableStoreOfADomainThatIsOffKeepsNothingFromBeingPlanned(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	nvram := filepath.Join(t.TempDir(), "vars.fd")
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.NVRAM = nvram })
	i := h.Scan(g)
	if said := strings.Join(i.Reasons, "; "); i.Verdict != recover.VerdictIntact || !i.IsWhole() || len(i.Possible) > 0 ||
		!strings.Contains(said, "Secure Boot keys") {
		t.Errorf("%s: %q, %q", i.Verdict, said, i.Possible)
	}
	h.Online()
	o := recovertest.Options(g)
	o.Reboot.States = []string{"SHUTOFF"}
	if todo := h.Planned(g, recover.CommandReboot, o); todo.Action != recover.ActionHardReboot {
		t.Errorf("%s: %s", todo.Action, todo.Refusal)
	}
	held, err := os.Open(g.Disk)
	recovertest.Must(t, err)
	defer held.Close()
	h.Purge()
	o = recovertest.Options(g)
	o.Holders = []int{os.Getpid()}
	todo := h.Planned(g, recover.CommandRescue, o)
	if todo.Action != recover.ActionPublish || len(todo.Files) == 0 {
		t.Errorf("%s: %s", todo.Action, todo.Refusal)
	}
	recovertest.Must(t, os.WriteFile(nvram, nil, 0o600))
	if i := h.Scan(g); i.Verdict != recover.VerdictLost {
		t.Errorf("an empty one, with which no start works: %s", i.Verdict)
	}
}
