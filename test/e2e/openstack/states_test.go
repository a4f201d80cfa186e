//go:build openstack

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab/patience"
	"github.com/os-rescue/os-rescue/test/openstack"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// One that was paused by its owner is paused again at the end, and one that
// somebody had locked stays locked.
func TestAnInstanceEndsAsItWasFound(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "paused"}, openstack.Spec{Name: "locked"})
	paused, locked := guests[0], guests[1]
	if err := servers.Pause(t.Context(), paused.owner.Compute, paused.UUID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.AwaitStatus(t.Context(), paused.UUID, "PAUSED"); err != nil {
		t.Fatal(err)
	}
	if err := servers.Lock(t.Context(), c.admin.Compute, locked.UUID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.deleteTree(t)
	said, saidPaused := locked.beat(t), paused.beat(t)
	c.rescue(t, 0, "--project", "demo")
	locked.isBack(t, 1, said)
	if server := c.server(t, locked); server.Status != "ACTIVE" || !*server.Locked {
		t.Errorf("the locked one is %s, locked %v", server.Status, *server.Locked)
	}
	waitFor(t, "the paused one", func() error { return c.hasStatus(t, paused, "PAUSED") })
	if state := paused.state(t); state != "paused" {
		t.Errorf("its domain is %s", state)
	}
	if err := servers.Unpause(t.Context(), paused.owner.Compute, paused.UUID).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	paused.isBack(t, 1, saidPaused)
	paused.onPublishedFiles(t)
}

// States from which Nova can't hard reboot, and tasks under way: nothing of the
// guest is touched.
func TestWhatNovaCantRebootIsLeftAlone(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	tests := []struct{ name, set, want string }{
		{"resized", "vm_state='resized'", "resize confirm"},
		{"rescued", "vm_state='rescued'", "rescue mode"},
		{"a task under way", "task_state='image_snapshot'", "task under way"},
		{"deleted, but to be had back", "vm_state='soft-delete'", "SOFT_DELETED"},
		{"evacuated", "host='compute-2'", "compute-2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			host := strings.TrimSpace(mustSQL(t, "nova", "select host from instances where uuid='%s'", g.UUID))
			c.sql(t, "update instances set %s where uuid='%s'", tt.set, g.UUID)
			defer c.sql(t, "update instances set vm_state='active', task_state=NULL, host='%s' where uuid='%s'", host, g.UUID)
			ran := c.rescue(t, 1, "--instance", g.UUID)
			if got := of(t, ran, g); got.Outcome != recover.OutcomeSkipped || !strings.Contains(got.Error, tt.want) {
				t.Errorf("the report says %s", asJSON(t, ran))
			}
			if *c.server(t, g).Locked {
				t.Error("it is locked")
			}
		})
	}
	g.unharmed(t)
	g.onDeletedFiles(t)
}

func mustSQL(t *testing.T, database, statement string, args ...any) string {
	t.Helper()
	out, err := bed.SQL(t.Context(), database, fmt.Sprintf(statement, args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A real rescue mode: the instance is left alone as well, but for a live rescue,
// after which it can leave rescue mode with all it had.
func TestAnInstanceInRescueModeIsRescuedLiveOnly(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	said := g.beat(t)
	if _, err := servers.Rescue(t.Context(), g.owner.Compute, g.UUID, servers.RescueOpts{}).Extract(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.AwaitStatus(t.Context(), g.UUID, "RESCUE"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.AwaitBoot(t.Context(), 1); err != nil { // of the disk that Nova made for it
		t.Fatal(err)
	}
	c.deleteTree(t)
	pid := g.QemuPID()
	ran := c.rescue(t, 1, "--instance", g.UUID)
	if got := of(t, ran, g); got.Outcome != recover.OutcomeSkipped ||
		!strings.Contains(got.Error, "RESCUED") || !strings.Contains(got.Error, "--mode live") {
		t.Errorf("the report says %s", asJSON(t, ran))
	}
	ran = c.rescue(t, 0, "--instance", g.UUID, "--mode", "live")
	if got := of(t, ran, g); got.Outcome != recover.OutcomeRescued || got.Verified != recover.VerifyRunning {
		t.Errorf("the report says %s", asJSON(t, ran))
	}
	if g.QemuPID() != pid || g.state(t) != "running" {
		t.Errorf("its domain is %s", g.state(t))
	}
	open, err := g.OpenFiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{g.Disk, g.Disk + ".rescue"} {
		if f, ok := open[path]; !ok || f.Nlink == 0 {
			t.Errorf("QEMU holds %s as %+v", path, f)
		}
	}
	g.unharmed(t)
	// The definition from before is gone, with a file that nobody held: Nova makes
	// it anew.
	if notes := strings.Join(of(t, ran, g).Notes, " "); !strings.Contains(notes, "--state active") {
		t.Errorf("the notes are %s", notes)
	}
	if err := servers.ResetState(t.Context(), c.admin.Compute, g.UUID, servers.StateActive).ExtractErr(); err != nil {
		t.Fatal(err)
	}
	c.rescue(t, 0, "reboot", "--instance", g.UUID)
	g.isBack(t, 1, said)
	g.onPublishedFiles(t)
}

func TestWithNovaComputeDownNothingIsDestroyed(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	said := g.beat(t)
	c.stop(t, openstack.NovaCompute)
	waitFor(t, "Nova to notice", func() error {
		r := c.run(t, 0, "--project", "demo", "--dry-run")
		if !strings.Contains(r.Stdout, "nova-compute is down") {
			return fmt.Errorf("the plan says\n%s", r.Stdout)
		}
		return nil
	})
	ran := c.rescue(t, 1, "--project", "demo")
	if got := of(t, ran, g); got.Outcome != recover.OutcomeSkipped || !strings.Contains(got.Error, "--no-reboot") {
		t.Errorf("the report says %s", asJSON(t, ran))
	}
	g.unharmed(t)

	// The files come back all the same, and the reboot follows.
	c.rescue(t, 0, "--project", "demo", "--no-reboot")
	if state := g.state(t); state != "shut off" {
		t.Errorf("after --no-reboot the domain is %s", state)
	}
	if *c.server(t, g).Locked {
		t.Error("it is still locked")
	}
	c.startAgain(t, openstack.NovaCompute)
	waitFor(t, "Nova to see that it is off", func() error { return c.hasStatus(t, g, "SHUTOFF") })
	c.rescue(t, 0, "reboot", "--project", "demo", "--state", "SHUTOFF")
	g.isBack(t, 1, said)
	c.inService(t, g)
}

// Software that acts on a destroyed domain by itself is named before anybody agrees.
func TestInstanceHAIsNamedInThePlan(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	agent := filepath.Join(t.TempDir(), "masakari-instancemonitor")
	write(t, agent, "#!/bin/bash\nsleep 300 & wait\n")
	if err := os.Chmod(agent, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(agent)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = exec.Command("pkill", "-P", fmt.Sprint(cmd.Process.Pid)).Run()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	patience.Wait(t, "the agent has its name, as the kernel cuts it", func() bool {
		return readFile(t, fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid)) == "masakari-instan\n"
	})
	r := c.run(t, 0, "--project", "demo", "--dry-run")
	if !strings.Contains(r.Stdout, "masakari-instancemonitor") || !strings.Contains(r.Stdout, "on_maintenance") {
		t.Errorf("the plan does not name it:\n%s", r.Stdout)
	}
	g.unharmed(t)
}
