//go:build openstack

package e2e

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// guest is an instance and what is known of it before the accident.
type guest struct {
	*openstack.Instance
	owner *openstack.Client
	boots int    // how often it has booted
	sum   string // of its payload
	disks int    // further disks with a payload
}

// last returns what the guest said in its last boot.
func (g *guest) last(t *testing.T) lab.Boot {
	t.Helper()
	boots, err := g.Boots()
	if err != nil {
		t.Fatal(err)
	}
	if len(boots) == 0 {
		t.Fatalf("the guest of %s has said nothing", g.Name)
	}
	return boots[len(boots)-1]
}

// beat returns the last beat that the guest has said.
func (g *guest) beat(t *testing.T) int {
	t.Helper()
	beat, err := g.LastBeat()
	if err != nil {
		t.Fatal(err)
	}
	return beat
}

// unharmed checks that the guest runs on, is writing to its disk, and was not
// rebooted.
func (g *guest) unharmed(t *testing.T) {
	t.Helper()
	if err := g.AwaitBeat(t.Context(), g.beat(t)+2); err != nil {
		t.Fatal(err)
	}
	if got := g.last(t).Number; got != g.boots {
		t.Fatalf("the guest of %s has booted %d times, want %d", g.Name, got, g.boots)
	}
}

// isBack waits until the guest has booted so many times more, and checks that
// nothing is lost: its payload, those of its further disks, and every beat up to
// the one that it had said.
func (g *guest) isBack(t *testing.T, more, said int) {
	t.Helper()
	boot, err := g.AwaitBoot(t.Context(), g.boots+more)
	if err != nil {
		t.Fatal(err)
	}
	g.boots += more
	if boot.Payload != "ok" || boot.SHA256 != g.sum {
		t.Errorf("the payload of %s is %q with %s, want ok with %s", g.Name, boot.Payload, boot.SHA256, g.sum)
	}
	if len(boot.Disks) != g.disks {
		t.Errorf("%s has %d further disks, want %d", g.Name, len(boot.Disks), g.disks)
	}
	for name, verdict := range boot.Disks {
		if verdict != "ok" {
			t.Errorf("the payload of %s of %s is %q", name, g.Name, verdict)
		}
	}
	if boot.LastBeat < said || boot.Gaps != 0 {
		t.Errorf("%s had said beat %d; on its disk are %d with %d gaps", g.Name, said, boot.LastBeat, boot.Gaps)
	}
	g.unharmed(t)
}

// onDeletedFiles checks that the instance's QEMU holds files that have no name.
func (g *guest) onDeletedFiles(t *testing.T) {
	t.Helper()
	open, err := g.OpenFiles()
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := open[g.Disk]; !ok || f.Nlink != 0 {
		t.Fatalf("QEMU holds %s as %+v, want it deleted", g.Disk, f)
	}
	if _, err := os.Lstat(g.Disk); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s is still there: %v", g.Disk, err)
	}
}

// onPublishedFiles checks that the files which QEMU holds are those that stand
// at their paths.
func (g *guest) onPublishedFiles(t *testing.T) {
	t.Helper()
	open, err := g.OpenFiles()
	if err != nil {
		t.Fatal(err)
	}
	if len(open) < 2+g.disks {
		t.Errorf("QEMU holds only %v", open)
	}
	for path, f := range open {
		if strings.HasSuffix(f.Path, " (deleted)") || f.Nlink == 0 {
			t.Errorf("%s is held as %+v, which is deleted", path, f)
		}
	}
}

// hardReboot asks Nova for a hard reboot, as the owner would.
func (g *guest) hardReboot(t *testing.T) error {
	t.Helper()
	return servers.Reboot(t.Context(), g.owner.Compute, g.UUID, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr()
}

// state returns virsh's word for the state of the domain; empty when there is none.
func (g *guest) state(t *testing.T) string {
	t.Helper()
	state, err := g.DomainState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return state
}
