package hypervisor

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func TestARestartBetweenCallsIsNotNoticed(t *testing.T) {
	libvirtd := startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	virsh(t, "define", writeXML(t, g.xml()))
	calls := []func() error{
		func() error { return c.Start(ctx, g.uuid, false) },
		func() error { _, err := c.Domains(ctx); return err },
		func() error { return c.Suspend(ctx, g.uuid) },
		func() error { _, err := c.Counters(ctx, g.uuid); return err },
		func() error { return c.Resume(ctx, g.uuid) },
		func() error { return c.Destroy(ctx, g.uuid) },
	}
	for i, call := range calls {
		libvirtd.kill()
		libvirtd.start(t)
		if err := call(); err != nil {
			t.Fatalf("call %d after a restart: %v", i, err)
		}
	}
}

func TestACallWaitsForADaemonThatIsAway(t *testing.T) {
	libvirtd := startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	virsh(t, "define", writeXML(t, g.xml()))
	libvirtd.kill()
	done := make(chan error, 2)
	go func() { _, err := c.Domains(ctx); done <- err }()
	go func() { done <- c.Start(ctx, g.uuid, true) }()
	libvirtd.start(t)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A change whose daemon dies is carried out once, whether it had happened or not.
func TestADaemonThatDiesUnderAChangeIsAskedAgain(t *testing.T) {
	tests := []struct {
		name, call string
		before     []string // virsh's words
		do         func(c *Client, ctx context.Context, uuid string) error
		happened   string // QEMU's command or signal, as if the daemon had sent it before its death
		want       string
		wantCalls  int
	}{
		{"suspend that did not happen", "virDomainSuspend", nil, (*Client).Suspend, "", "paused (user)", 2},
		{"suspend that happened", "virDomainSuspend", nil, (*Client).Suspend, "stop", "paused (user)", 1},
		{"resume that did not happen", "virDomainResume", []string{"suspend"}, (*Client).Resume, "", "running (unpaused)", 2},
		{"resume that happened", "virDomainResume", []string{"suspend"}, (*Client).Resume, "cont", "running (unpaused)", 1},
		{"destroy that did not happen", "virDomainDestroy", nil, (*Client).Destroy, "", "shut off (destroyed)", 2},
		{"start that did not happen", "virDomainCreateWithFlags", []string{"destroy"}, startPaused, "", "paused (user)", 2},
		{"destroy that happened", "virDomainDestroy", nil, (*Client).Destroy, "SIGKILL", "shut off", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			libvirtd := startLibvirt(t)
			g := newGuest(t)
			issued := 0
			c, ctx := open(t, func(call string) {
				if call != tt.call {
					return
				}
				if issued++; issued > 1 {
					return
				}
				libvirtd.kill()
				switch tt.happened {
				case "":
				case "SIGKILL": // what virDomainDestroy ends a QEMU with that does not heed its SIGTERM
					pid := qemuOf(t, g.uuid)
					killGuests()
					patience.Wait(t, "QEMU to end", func() bool { return syscall.Kill(pid, 0) != nil })
				default:
					qmp(t, tt.happened)
				}
				libvirtd.start(t)
			})
			virsh(t, "define", writeXML(t, g.xml()))
			virsh(t, "start", g.name)
			for _, word := range tt.before {
				virsh(t, word, g.name)
			}
			if err := tt.do(c, ctx, g.uuid); err != nil {
				t.Fatal(err)
			}
			if got := virsh(t, "domstate", "--reason", g.name); !strings.HasPrefix(got, tt.want) {
				t.Errorf("virsh shows %q, want %q", got, tt.want)
			}
			if issued != tt.wantCalls {
				t.Errorf("%s was called %d times, want %d", tt.call, issued, tt.wantCalls)
			}
		})
	}
}

func TestAnotherLifeOfTheDomainIsNotDestroyed(t *testing.T) {
	libvirtd := startLibvirt(t)
	g := newGuest(t)
	issued := 0
	c, ctx := open(t, func(call string) {
		if call != "virDomainDestroy" {
			return
		}
		if issued++; issued > 1 {
			return
		}
		libvirtd.kill()
		killGuests()
		libvirtd.start(t)
		patience.Wait(t, "the new daemon to see that QEMU is gone", func() bool { return virsh(t, "domstate", g.name) == "shut off" })
		virsh(t, "start", g.name)
	})
	virsh(t, "define", writeXML(t, g.xml()))
	virsh(t, "start", g.name)
	if err := c.Destroy(ctx, g.uuid); !errors.Is(err, ErrState) {
		t.Errorf("error %v, want ErrState", err)
	}
	if got := virsh(t, "domstate", g.name); got != "running" {
		t.Errorf("the new life is %q", got)
	}
}

func TestADaemonThatStaysAwayIsUnavailable(t *testing.T) {
	libvirtd := startLibvirt(t)
	c, ctx := open(t, nil)
	c.retryFor = time.Second
	libvirtd.kill()
	if _, err := c.Domains(ctx); !errors.Is(err, recover.ErrUnavailable) {
		t.Errorf("Domains: error %v, want ErrUnavailable", err)
	}
	if err := c.Suspend(ctx, testUUID); !errors.Is(err, recover.ErrUnavailable) || strings.Contains(err.Error(), "not known") {
		t.Errorf("Suspend: error %v, want ErrUnavailable of a call that was never made", err)
	}
}

func TestADaemonThatHangsIsAnErrorAndNotAHang(t *testing.T) {
	libvirtd := startLibvirt(t)
	c, ctx := open(t, nil)
	c.retryFor = time.Second
	// As many connections as there will be calls: only an open one can hang.
	const waiting = 2
	var conns []*libvirt.Connect
	for range 2*waiting + 1 {
		conn, err := c.take(ctx)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		c.put(conn)
	}
	libvirtd.signal(t, syscall.SIGSTOP)
	defer libvirtd.signal(t, syscall.SIGCONT)

	// A read ends with its context at once ...
	short, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { _, err := c.Domains(short); done <- err }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a read whose context ends: error %v", err)
	}
	// ... and all others, however many, with the keepalive.
	var wg sync.WaitGroup
	for range waiting {
		wg.Go(func() {
			if _, err := c.Domains(ctx); !errors.Is(err, recover.ErrUnavailable) {
				t.Errorf("Domains: error %v, want ErrUnavailable", err)
			}
		})
		wg.Go(func() {
			if err := c.Suspend(ctx, testUUID); !errors.Is(err, recover.ErrUnavailable) {
				t.Errorf("Suspend: error %v, want ErrUnavailable", err)
			}
		})
	}
	wg.Wait()
}

//nolint:revive // the shape of a method expression
func startPaused(c *Client, ctx context.Context, uuid string) error { return c.Start(ctx, uuid, true) }

func TestAMirrorOutlivesTheDaemonInTheMiddleOfItsCopy(t *testing.T) {
	libvirtd := startLibvirt(t)
	g := newGuest(t)
	killed := false
	c, ctx := open(t, func(made string) {
		if made == "virDomainGetBlockJobInfo" && killed {
			killed = false
			libvirtd.kill()
			libvirtd.start(t)
		}
	})
	fill(t, g, 24<<20)
	running(ctx, t, c, g)
	made := empty(t, g.file("mirror"))
	m := recover.MirrorRequest{Target: "vdb", Path: g.file("mirror"), Format: "raw", BytesPerSecond: 1 << 20, Synchronous: true}
	if err := c.Mirror(ctx, g.uuid, m); err != nil {
		t.Fatal(err)
	}
	var before recover.MirrorState
	patience.Wait(t, "the copy to begin", func() (begun bool) {
		var err error
		if before, err = c.MirrorState(ctx, g.uuid, "vdb"); err != nil {
			t.Fatal(err)
		}
		return before.Copied > 0
	})
	killed = true
	after, err := c.MirrorState(ctx, g.uuid, "vdb")
	if err != nil {
		t.Fatal(err)
	}
	if killed || before.Ready || after.Ready || after.Copied < before.Copied || after.Copied >= after.Total {
		t.Errorf("killed %v; before %+v, after %+v: not the middle of a copy", !killed, before, after)
	}
	// Ended before it is ready, it lets go of its file all the same.
	if err := c.EndMirror(ctx, g.uuid, "vdb"); err != nil {
		t.Fatal(err)
	}
	if _, open := descriptors(t)[made]; open {
		t.Error("QEMU has the mirror's file open still")
	}
}
