// Package service holds the cases of os-rescue as a service: in the lab, under a
// real systemd.
package service

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/systemd"
)

func TestMain(m *testing.M) { lab.MainWithSystemd(m) }

// The ground of the other cases: a service of the lab's host reads what a guest's
// QEMU has open, and sees the tree.
func TestAServiceSeesTheGuests(t *testing.T) {
	l := lab.New(t, lab.Options{})
	guest := l.Boot(t, lab.Spec{})
	dir := t.TempDir()
	systemd.Install(t, "look.service", fmt.Sprintf(`
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'ls -l /proc/%d/fd %s > %s/seen'
ProtectSystem=strict
ReadWritePaths=%[3]s
CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH
`, guest.QemuPID(), lab.InstancesDir, dir))
	systemd.Ctl(t, "start", "look.service")
	text, err := os.ReadFile(dir + "/seen")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{guest.Disk, " _base", " " + guest.UUID} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the service saw no %s:\n%s", want, text)
		}
	}
	guest.WaitBeat(t, guest.LastBeat()+2)
}

// What a lab ends, systemd survives.
func TestTheNextLabHasSystemdToo(t *testing.T) {
	lab.New(t, lab.Options{})
	if state := systemd.Ctl(t, "is-system-running"); state != "running" {
		t.Errorf("systemd is %s", state)
	}
}
