//go:build openstack

package e2e

import (
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/openstack"
)

func TestNovaGoneAfterTheDestroyLeavesTheRebootToResume(t *testing.T) {
	c := newCloud(t)
	write(t, c.config, readFile(t, c.config)+"nova:\n  retry_for: 3s\n")
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	said := g.beat(t)

	r := c.at(t, "destroy.done", func() { c.stop(t, openstack.NovaAPI) }, "--project", "demo", "--yes")
	if r.Code != 1 || !strings.Contains(r.Stdout, "os-rescue resume") || !strings.Contains(r.Stdout, "No data is lost") {
		t.Errorf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	if run := c.newestRun(t); run.State != recover.RunInterrupted {
		t.Errorf("the run is %s", run.State)
	}
	if _, err := os.Stat(g.Disk); err != nil {
		t.Errorf("its disk is not back: %v", err)
	}
	// Nobody to ask: the environment is unusable, and nothing changes.
	c.run(t, 3, "resume", "--yes")

	c.startAgain(t, openstack.NovaAPI)
	c.run(t, 0, "resume", "--yes")
	g.isBack(t, 1, said)
	g.onPublishedFiles(t)
	c.inService(t, g)
	if run := c.newestRun(t); run.State != recover.RunFinished {
		t.Errorf("the run is %s", run.State)
	}
}

func TestNovaGoneBeforeTheDestroyLeavesTheGuestRunning(t *testing.T) {
	c := newCloud(t)
	write(t, c.config, readFile(t, c.config)+"nova:\n  retry_for: 3s\n")
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)

	p := c.at(t, "lock.begin", func() { c.stop(t, openstack.NovaAPI) }, "--project", "demo", "--yes")
	if p.Code != 1 {
		t.Errorf("exit code %d\n%s\n%s", p.Code, p.Stdout, p.Stderr)
	}
	g.unharmed(t)
	g.onDeletedFiles(t)

	// With Keystone away too nobody can even sign in.
	c.stop(t, openstack.Keystone)
	r := c.run(t, 3, "--project", "demo", "--yes")
	if !strings.Contains(r.Stderr, "--offline") {
		t.Errorf("it does not say what works without Nova:\n%s", r.Stderr)
	}
	g.unharmed(t)
	c.startAgain(t, openstack.Keystone)
	c.startAgain(t, openstack.NovaAPI)
	c.run(t, 0, "resume", "--yes")
	c.inService(t, g)
}

// A rescue that was killed while Nova was rebooting: the reboot is not asked for
// twice, and the lock is undone.
func TestAKilledRunIsFinishedByResume(t *testing.T) {
	for _, point := range []string{"lock.done", "publish.done", "reboot.begin", "reboot.done"} {
		t.Run(point, func(t *testing.T) {
			c := newCloud(t)
			g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
			c.deleteTree(t)
			said := g.beat(t)
			ends(t, c.start(t, []string{"OS_RESCUE_FAILPOINT=" + point + "=kill"}, "--project", "demo", "--yes"), 137)
			if reason := c.lockReason(t, g); !strings.HasPrefix(reason, "os-rescue ") {
				t.Errorf("after the kill it is locked for the reason %q", reason)
			}
			c.run(t, 0, "resume", "--yes")
			g.isBack(t, 1, said)
			g.onPublishedFiles(t)
			c.inService(t, g)
		})
	}
}

// Somebody takes the published disk away again before Nova comes to it: Nova's own
// words are in the report, and resume goes on when the disk is back.
func TestAHardRebootThatFailsIsReportedWithNovasFault(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	said := g.beat(t)
	away := g.Disk + ".away"
	r := c.at(t, "reboot.begin", func() {
		if err := os.Rename(g.Disk, away); err != nil {
			t.Fatal(err)
		}
	}, "--project", "demo", "--yes")
	if r.Code != 1 || !strings.Contains(r.Stdout, "No disk at "+g.Disk) {
		t.Errorf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	if err := c.hasStatus(t, g, "ERROR"); err != nil {
		t.Error(err)
	}
	if err := os.Rename(away, g.Disk); err != nil {
		t.Fatal(err)
	}
	c.run(t, 0, "resume", "--yes")
	g.isBack(t, 1, said)
	g.onPublishedFiles(t)
	c.inService(t, g)
}

// Offline nothing is asked of anybody, whatever the environment says.
func TestOfflineNeverContactsTheAPI(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	said := g.beat(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var calls atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			conn.Close()
		}
	}()
	env := []string{"OS_AUTH_URL=http://" + listener.Addr().String() + "/v3", "OS_RESCUE_WATCH=0s"}
	r := ends(t, c.start(t, env, "--project", "demo", "--offline", "--yes", "--output", "json"), 0)
	var ran recover.RunReport
	decode(t, r.Stdout, &ran)
	if n := calls.Load(); n != 0 {
		t.Errorf("the API was called %d times", n)
	}
	g.isBack(t, 1, said)
}

// About 15 s after the destroy Nova stops the instance by itself. When the reboot
// comes only after that, it still comes.
func TestAHardRebootAfterNovasOwnStop(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	said := g.beat(t)
	r := c.at(t, "reboot.begin", func() {
		waitFor(t, "Nova's own stop", func() error { return c.hasStatus(t, g, "SHUTOFF") })
	}, "--project", "demo", "--yes")
	if r.Code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", r.Code, r.Stdout, r.Stderr)
	}
	g.isBack(t, 1, said)
	c.inService(t, g)
}

// The same with the reboot right on top of it: 15 s after the destroy.
func TestAHardRebootRacingNovasOwnStop(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	said := g.beat(t)
	ends(t, c.start(t, []string{"OS_RESCUE_FAILPOINT=reboot.begin=sleep:14500ms"}, "--project", "demo", "--yes"), 0)
	g.isBack(t, 1, said)
	time.Sleep(5 * time.Second)
	g.unharmed(t)
	c.inService(t, g)
}
