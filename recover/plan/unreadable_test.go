package plan_test

import (
	"os"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// libvirt leaves what virsh blockcopy makes root:root 0600.
func TestNothingIsEndedThatNovaCouldNotReadBeforeItsStart(t *testing.T) {
	for name, c := range map[string]struct {
		mode    os.FileMode
		uid     int
		format  string
		refused bool
	}{
		"root's alone": {mode: 0o600, format: "qcow2", refused: true},
		"root's alone, of which Nova only takes the size": {mode: 0o600, format: "raw"},
		"QEMU's alone":                 {mode: 0o600, uid: 64055, format: "qcow2"},
		"Nova's alone":                 {mode: 0o600, uid: 65534, format: "qcow2"},
		"everybody's":                  {mode: 0o644, format: "qcow2"},
		"a group's, or an access list": {mode: 0o640, format: "qcow2"},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			h.Settings.Owners.InstancesDir.User = "nobody"
			g := h.Add(1, recovertest.GuestOptions{})
			if c.format == "qcow2" {
				recovertest.CreateQcow2(t, g.Disk, "1M")
			}
			h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Disks[0].Chain[0].Format = c.format })
			h.Online()
			recovertest.Must(t, os.Chmod(g.Disk, c.mode))
			recovertest.Must(t, os.Chown(g.Disk, c.uid, c.uid))
			todo := h.Planned(g, recover.CommandReboot, recovertest.Options(g))
			if (todo.Action == recover.ActionRefuse) != c.refused || !c.refused && todo.Action != recover.ActionHardReboot {
				t.Errorf("%s %q", todo.Action, todo.Refusal)
			}
			if c.refused && !strings.Contains(todo.Refusal, "chmod 0644 "+g.Disk) {
				t.Errorf("%q", todo.Refusal)
			}
		})
	}
}
