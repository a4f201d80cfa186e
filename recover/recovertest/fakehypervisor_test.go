package recovertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

func TestMain(m *testing.M) { Main(m) }

// fakeBed is TestHypervisor's bed on the fake hypervisor.
type fakeBed struct {
	hv *FakeHypervisor

	mu     sync.Mutex
	guests int
}

func TestTheFakeHypervisorDoesWhatThePortSays(t *testing.T) {
	hv := newHypervisor()
	t.Cleanup(hv.EndAll)
	TestHypervisor(t, &fakeBed{hv: hv})
}

func (b *fakeBed) Open(*testing.T, time.Duration) recover.Hypervisor { return b.hv }

func (b *fakeBed) Guest(t *testing.T, kind GuestKind) SuiteGuest {
	t.Helper()
	b.mu.Lock()
	b.guests++
	n := b.guests
	b.mu.Unlock()
	dir := t.TempDir()
	image := func(name string, seed, size int) recover.Image {
		path := filepath.Join(dir, name)
		Must(t, os.WriteFile(path, Payload(seed, size), 0o600))
		return recover.Image{Source: recover.SourceFile, Path: path, Format: "raw"}
	}
	const small, large = 64 << 10, 1 << 20
	g := SuiteGuest{UUID: UUID(n), Secret: fmt.Sprint("sesame-", n)}
	b.hv.Add(recover.Domain{UUID: g.UUID, Name: fmt.Sprintf("instance-%08x", n), State: recover.StateShutOff, Persistent: true,
		Disks: []recover.Disk{
			{Target: "vda", Device: "disk", Chain: []recover.Image{image("disk", 3*n, small), image("base", 3*n+1, small)}},
			{Target: "vdb", Device: "disk", Chain: []recover.Image{image("data", 3*n+2, large)}},
		}}, kind == KindAgent)
	b.hv.Change(g.UUID, func(d *FakeDomain) { d.secret, d.Persistent = g.Secret, kind != KindTransient })
	if kind != KindOff {
		Must(t, b.hv.Start(t.Context(), g.UUID, false))
	}
	if kind == KindStuck {
		b.hv.Change(g.UUID, func(d *FakeDomain) { d.State, d.PauseReason = recover.StatePaused, recover.PauseIOError })
	}
	return g
}

func (b *fakeBed) Ask(t *testing.T, g SuiteGuest) {
	t.Helper()
	Must(t, b.hv.ask(g.UUID))
}

func (b *fakeBed) Frozen(_ *testing.T, g SuiteGuest) bool { return b.hv.Get(g.UUID).Frozen }

// Undefine forgets the domain for good: what Define makes of it comes from the text.
func (b *fakeBed) Undefine(_ *testing.T, g SuiteGuest) {
	b.hv.Forget(g.UUID)
	b.hv.mu.Lock()
	defer b.hv.mu.Unlock()
	delete(b.hv.gone, g.UUID)
}

func (b *fakeBed) Within(ctx context.Context, t *testing.T, method string, do func()) context.Context {
	t.Helper()
	name, ok := map[string]string{"Suspend": "suspend", "Start": "start", "Destroy": "destroy", "Domains": "domains"}[method]
	if !ok {
		t.Fatalf("the fake has no method %s", method)
	}
	b.hv.mu.Lock()
	defer b.hv.mu.Unlock()
	b.hv.within[name] = do
	return ctx
}

func (b *fakeBed) Restart(*testing.T) {
	b.hv.goAway()
	b.hv.comeBack()
}

func (b *fakeBed) Away(*testing.T) (back func()) {
	b.hv.goAway()
	return b.hv.comeBack
}
