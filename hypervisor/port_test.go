package hypervisor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func TestLibvirtAndQEMUDoWhatThePortSays(t *testing.T) {
	bed := &libvirtBed{libvirtd: startLibvirt(t), image: guestImage(t)}
	bed.client, _ = open(t, nil)
	recovertest.TestHypervisor(t, bed)
}

// guestImage is the lab's guest: it has an agent.
func guestImage(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("OS_RESCUE_LAB_CACHE")
	if cache == "" {
		cache = filepath.Join("..", "test", ".cache")
	}
	image, err := lab.GuestImage(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	if image, err = filepath.Abs(image); err != nil {
		t.Fatal(err)
	}
	return image
}

// libvirtBed is recovertest's bed on a real libvirtd.
type libvirtBed struct {
	libvirtd *daemon
	client   *Client
	image    string

	mu     sync.Mutex
	guests int
}

func (b *libvirtBed) Open(t *testing.T, patience time.Duration) recover.Hypervisor {
	t.Helper()
	c, err := Open(t.Context(), Options{RetryFor: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// secret is the password of a suite guest's screen.
func secret(n int) string { return fmt.Sprintf("sesame%d", n) }

func (b *libvirtBed) Guest(t *testing.T, kind recovertest.GuestKind) recovertest.SuiteGuest {
	t.Helper()
	b.mu.Lock()
	b.guests++
	n := b.guests
	b.mu.Unlock()
	g := newGuest(t)
	g.name, g.uuid = fmt.Sprintf("instance-%08x", n), fmt.Sprintf("5f1f33a4-8c0e-4a3b-9a8e-%012x", n)
	doc := strings.Replace(g.xml(), "sesame", secret(n), 1)
	switch kind {
	case recovertest.KindStuck:
		doc = strings.Replace(doc, g.file("data"), fullDisk(t, g), 1)
	case recovertest.KindAgent:
		doc = b.agentXML(t, g, doc)
	default:
		g.writeOnKeys(t)
	}
	file := writeXML(t, doc)
	t.Cleanup(func() { b.remove(g) })
	switch kind {
	case recovertest.KindTransient:
		virsh(t, "create", file)
	case recovertest.KindOff:
		virsh(t, "define", file)
	default:
		virsh(t, "define", file)
		virsh(t, "start", g.name)
	}
	switch kind {
	case recovertest.KindRunning, recovertest.KindTransient:
		patience.Wait(t, "the guest's boot", func() bool { return b.written(t, g.uuid) > 0 })
	case recovertest.KindStuck:
		patience.Wait(t, "the guest to meet the full file system", func() bool { return virsh(t, "domstate", g.name) == "paused" })
	case recovertest.KindAgent:
		patience.Wait(t, "the guest's agent", func() bool {
			return virshOrNothing(t.Context(), "qemu-agent-command", g.name, `{"execute":"guest-ping"}`) != ""
		})
	}
	return recovertest.SuiteGuest{UUID: g.uuid, Secret: secret(n)}
}

// writeOnKeys gives the guest a boot sector that writes another content at each key, and
// its second disk something to mirror.
func (g guest) writeOnKeys(t *testing.T) {
	t.Helper()
	base, err := os.OpenFile(g.file("base"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	if _, err := base.WriteAt(keySector(), 0); err != nil {
		t.Fatal(err)
	}
	fill(t, g, 8<<20)
}

// keySector is bootSector that writes again for each key that is pressed, each time with
// another byte at 7df0h.
func keySector() []byte {
	sector := bootSector()
	code := []byte{0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb} // ds = ss = 0, sp = 7c00h, sti
	again := len(code)
	code = append(code, 0xfe, 0x06, 0xf0, 0x7d) // inc byte [7df0h]
	for _, drive := range []byte{0x80, 0x81} {
		code = append(code, 0xbe, 0x00, 0x7d, 0xb8, 0x00, 0x43, 0xb2, drive, 0xcd, 0x13)
	}
	code = append(code, 0x30, 0xe4, 0xcd, 0x16) // INT 16h, function 0: wait for a key
	code = append(code, 0xeb, byte(again-len(code)-2))
	copy(sector, code)
	return sector
}

// fullDisk puts the guest's second disk on a file system that has no room for its write.
func fullDisk(t *testing.T, g guest) string {
	t.Helper()
	full := g.file("full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", full, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(full, syscall.MNT_DETACH) })
	data := filepath.Join(full, "data")
	if err := os.WriteFile(data, make([]byte, 64<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(data, 32<<20); err != nil {
		t.Fatal(err)
	}
	return data
}

// agentXML is a guest with an operating system, and an agent in it.
func (b *libvirtBed) agentXML(t *testing.T, g guest, doc string) string {
	t.Helper()
	if err := os.Remove(g.file("disk")); err != nil {
		t.Fatal(err)
	}
	// A copy: libvirt gives what a guest opens to QEMU's user.
	run(t, "cp", "--sparse=always", b.image, g.file("base"))
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", g.file("base"), g.file("disk"))
	return strings.NewReplacer(
		"<memory unit='MiB'>32", "<memory unit='MiB'>160",
		"<devices>", `<cpu mode='custom' match='exact'>
  <model fallback='allow'>qemu64</model><feature policy='require' name='rdrand'/>
</cpu>
<devices>`,
		"</devices>", `<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<channel type='unix'>
  <source mode='bind' path='`+filepath.Join("/run/libvirt", g.name+".lab")+`'/><target type='virtio' name='lab.0'/>
</channel>
</devices>`,
	).Replace(doc)
}

// remove ends a guest, whatever a test has made of it.
func (b *libvirtBed) remove(g guest) {
	for _, word := range []string{"destroy", "undefine"} {
		virshOrNothing(context.Background(), word, g.uuid)
	}
}

// written is how often the guest has written to its last disk.
func (b *libvirtBed) written(t *testing.T, uuid string) int64 {
	t.Helper()
	counters, err := b.client.Counters(t.Context(), uuid)
	if err != nil {
		t.Fatal(err)
	}
	return counters["vdb"].WriteRequests
}

// Ask presses a key, which a guest that is paused does not see, and one that boots loses.
func (b *libvirtBed) Ask(t *testing.T, g recovertest.SuiteGuest) {
	t.Helper()
	ctx := t.Context()
	press := func() bool {
		d, err := b.client.Domain(ctx, g.UUID)
		if err != nil {
			return true // it is gone, or the test is over
		}
		if d.State != recover.StateRunning {
			return false
		}
		counters, err := b.client.Counters(ctx, g.UUID)
		return err == nil && counters["vdb"].WriteRequests > 0 && virshOrNothing(ctx, "send-key", g.UUID, "KEY_A") != ""
	}
	if press() {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !press() {
			time.Sleep(20 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { <-done })
}

func (b *libvirtBed) Frozen(t *testing.T, g recovertest.SuiteGuest) bool {
	t.Helper()
	return strings.Contains(virsh(t, "qemu-agent-command", g.UUID, `{"execute":"guest-fsfreeze-status"}`), `"frozen"`)
}

func (b *libvirtBed) Undefine(t *testing.T, g recovertest.SuiteGuest) {
	t.Helper()
	virsh(t, "undefine", g.UUID)
}

func (b *libvirtBed) Within(ctx context.Context, t *testing.T, method string, do func()) context.Context {
	t.Helper()
	call, ok := map[string]string{
		"Suspend": "virDomainSuspend", "Start": "virDomainCreateWithFlags", "Destroy": "virDomainDestroy", "Domains": "virDomainGetXMLDesc",
	}[method]
	if !ok {
		t.Fatalf("no call of libvirt is known for %s", method)
	}
	var once sync.Once
	return zerolog.New(calls(func(made string) {
		if made == call {
			once.Do(do)
		}
	})).WithContext(ctx)
}

func (b *libvirtBed) Restart(t *testing.T) {
	t.Helper()
	b.libvirtd.kill()
	b.libvirtd.start(t)
}

func (b *libvirtBed) Away(t *testing.T) (back func()) {
	t.Helper()
	b.libvirtd.kill()
	return func() { b.libvirtd.start(t) }
}

// virshOrNothing is virsh where it may fail: then it is "".
func virshOrNothing(ctx context.Context, args ...string) string {
	out, err := exec.CommandContext(ctx, "virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...).CombinedOutput()
	if err != nil {
		return ""
	}
	return string(out) + "done"
}
