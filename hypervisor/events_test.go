package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// markUUID is a domain that the tests define to know that all before it was told.
const markUUID = "b41e3f62-9d0a-4c57-8f2e-6a7b8c9d0e1f"

// watched listens, until the test ends.
func watched(ctx context.Context, t *testing.T, c *Client) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	ch, err := c.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		for range ch {
		}
	})
	return ch
}

// told is what was told until now.
func told(t *testing.T, ch <-chan string) []string {
	t.Helper()
	virsh(t, "define", writeXML(t, minimal(markUUID)))
	var all []string
	for limit := time.After(patience.Limit()); ; {
		select {
		case uuid, ok := <-ch:
			if !ok {
				t.Fatal("the channel is closed")
			}
			if uuid == markUUID {
				return all
			}
			all = append(all, uuid)
		case <-limit:
			t.Fatalf("no event in time, after %v", all)
		}
	}
}

// minimal defines a domain that is never started.
func minimal(uuid string) string {
	return fmt.Sprintf(`<domain type='qemu'><name>%s</name><uuid>%[1]s</uuid><memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os></domain>`, uuid)
}

func TestEveryChangeOfADomainIsTold(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	ch := watched(ctx, t, c)
	file := writeXML(t, g.xml())
	saved := filepath.Join(t.TempDir(), "saved")
	for _, words := range [][]string{
		{"define", file}, {"start", g.name}, {"suspend", g.name}, {"resume", g.name}, {"save", g.name, saved},
		{"restore", saved}, {"destroy", g.name}, {"undefine", g.name}, {"create", file}, {"destroy", g.name},
	} {
		virsh(t, words...)
		if all := told(t, ch); len(all) == 0 || slices.ContainsFunc(all, func(uuid string) bool { return uuid != g.uuid }) {
			t.Errorf("after %s was told %q, want %s", words[0], all, g.uuid)
		}
	}
	if all := told(t, ch); len(all) != 0 {
		t.Errorf("after nothing was told %q", all)
	}

	// A QEMU that ends by itself, or by the OOM killer.
	virsh(t, "create", file)
	told(t, ch)
	d, err := c.Domain(ctx, g.uuid) // the one that libvirt started: not whatever else has its arguments
	if err != nil {
		t.Fatal(err)
	}
	pid := d.PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case uuid := <-ch:
		if uuid != g.uuid {
			t.Errorf("after the death of QEMU was told %q, want %s", uuid, g.uuid)
		}
	case <-time.After(patience.Limit()):
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		t.Errorf("the death of QEMU is not told; domains:\n%s\nprocess %d:\n%s", virsh(t, "list", "--all"), pid, status)
	}
}

func TestEventsComeAgainAfterARestartAndACrash(t *testing.T) {
	libvirtd := startLibvirt(t)
	c, ctx := open(t, nil)
	ch := watched(ctx, t, c)
	told(t, ch)
	for name, end := range map[string]func(){
		"restart": func() {
			libvirtd.signal(t, syscall.SIGTERM)
			if err := libvirtd.cmd.Wait(); err != nil {
				t.Fatal(err)
			}
		},
		"crash": libvirtd.kill,
		"crash that is repaired late": func() {
			libvirtd.kill()
			time.Sleep(2 * eventsPoll) // some tries fail
		},
	} {
		end()
		libvirtd.start(t)
		if uuid := receive(t, ch); uuid != "" {
			t.Fatalf("after a %s was told %q, want that anything may have happened", name, uuid)
		}
		virsh(t, "define", writeXML(t, minimal(testUUID)))
		if all := told(t, ch); !slices.Equal(all, []string{testUUID}) {
			t.Errorf("after a %s was told %q, want %s", name, all, testUUID)
		}
	}
}

func receive(t *testing.T, ch <-chan string) string {
	t.Helper()
	select {
	case uuid, ok := <-ch:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return uuid
	case <-time.After(patience.Limit()):
		t.Fatal("no event in time")
		return ""
	}
}

// A daemon that hangs is given up by the keepalive; events that came meanwhile
// are lost.
func TestEventsComeAgainAfterADaemonHung(t *testing.T) {
	libvirtd := startLibvirt(t)
	givenUp := make(chan struct{}, 1)
	c, ctx := open(t, func(call string) {
		if call == "virConnectDomainEventDeregisterAny" {
			select {
			case givenUp <- struct{}{}:
			default:
			}
		}
	})
	ch := watched(ctx, t, c)
	told(t, ch)
	libvirtd.signal(t, syscall.SIGSTOP)
	<-givenUp
	libvirtd.signal(t, syscall.SIGCONT)
	if uuid := receive(t, ch); uuid != "" {
		t.Fatalf("was told %q", uuid)
	}
	virsh(t, "define", writeXML(t, minimal(testUUID)))
	if all := told(t, ch); !slices.Equal(all, []string{testUUID}) {
		t.Errorf("was told %q, want %s", all, testUUID)
	}
}

func TestEventsEndWithTheirContextAndLeaveNothing(t *testing.T) {
	libvirtd := startLibvirt(t)
	c, ctx := open(t, nil)
	// Whatever is started once is started.
	first := watched(ctx, t, c)
	told(t, first)

	for _, state := range []string{"at work", "hung", "away"} {
		goroutines, conns := runtime.NumGoroutine(), openConnections(t)
		ctx, cancel := context.WithCancel(ctx)
		const many = 5
		var all []<-chan string
		for range many {
			ch, err := c.Events(ctx)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, ch)
		}
		virsh(t, "define", writeXML(t, minimal(testUUID))) // told to nobody
		if n := openConnections(t); n != conns+many {
			t.Fatalf("%d connections, want %d", n, conns+many)
		}
		began := time.Now()
		switch state {
		case "hung":
			libvirtd.signal(t, syscall.SIGSTOP)
		case "away":
			libvirtd.kill()
			conns = 0
		}
		cancel()
		for _, ch := range all {
			for range ch {
			}
		}
		if state == "hung" {
			// Nobody waited for the daemon: unless this machine took longer than the keepalive
			// for it, each connection is still there.
			if n := openConnections(t); n != conns+many && time.Since(began) < keepAliveSeconds*keepAliveCount*time.Second {
				t.Errorf("hung: %d connections, want %d still", n, conns+many)
			}
			libvirtd.signal(t, syscall.SIGCONT)
		}
		wanted := fmt.Sprintf("%s: %d goroutines, not %d, and %d connections", state, goroutines, runtime.NumGoroutine(), conns)
		patience.Wait(t, wanted, func() bool {
			return runtime.NumGoroutine() <= goroutines && openConnections(t) == conns
		})
	}
	libvirtd.start(t)
	if uuid := receive(t, first); uuid != testUUID { // the last one's, before its end
		t.Errorf("was told %q", uuid)
	}
}

// openConnections counts the sockets of this process that libvirtd accepted.
func openConnections(t *testing.T) int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, link := range links {
		if to, _ := os.Readlink(link); strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// Nobody receives: everything else goes on, and nothing is lost.
func TestASlowReceiverHoldsNothingUp(t *testing.T) {
	startLibvirt(t)
	c, ctx := open(t, nil)
	ch := watched(ctx, t, c)
	var uuids []string
	for i := range 20 {
		uuid := fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
		uuids = append(uuids, uuid)
		for range 2 {
			if err := c.Define(ctx, minimal(uuid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if domains, err := c.Domains(ctx); err != nil || len(domains) != len(uuids) {
		t.Fatalf("%d domains, error %v", len(domains), err)
	}
	// The first may have been on its way when its second change came.
	all := told(t, ch)
	n := len(all)
	if got := slices.Compact(all); n > len(uuids)+1 || !slices.Equal(got, uuids) {
		t.Errorf("was told %q, want each once", all)
	}
}

func TestTooManyChangesAreToldAsAnyMayHaveHappened(t *testing.T) {
	c := newChanges()
	for i := range maxChanges {
		c.add(fmt.Sprint(i))
		c.add(fmt.Sprint(i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	out := make(chan string)
	go c.send(ctx, out)
	if first := <-out; first != "0" {
		t.Errorf("was told %q first", first)
	}
	for i := range 3 {
		c.add(fmt.Sprint("more", i))
	}
	// One may be on its way.
	got := <-out
	if got == "1" {
		got = <-out
	}
	if got != "" {
		t.Errorf("was told %q, want that anything may have happened", got)
	}
	c.add("later")
	if got := <-out; got != "later" {
		t.Errorf("was told %q, want what came later", got)
	}
	cancel()
	if _, ok := <-out; ok {
		t.Error("the channel is not closed")
	}
}

func TestEventsWithoutLibvirtAreAnError(t *testing.T) {
	libvirtd := startLibvirt(t)
	c, ctx := open(t, nil)
	libvirtd.kill()
	if _, err := c.Events(ctx); !errors.Is(err, recover.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
	libvirtd.start(t)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Events(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Events(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
}
