package guard_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// guarding is a guard that runs on a host of the tests.
type guarding struct {
	*guard.Guard
	t    testing.TB
	h    *runtest.Host
	log  *recovertest.Buffer
	stop func() error
}

// startGuard starts a guard of a host in this process, and ends it with the test.
func startGuard(h *runtest.Host, o guard.Options, shelf guard.Shelf, inherited []*os.File) *guarding {
	t := h.T
	t.Helper()
	if h.Cloud != nil && o.SignIn == nil {
		o.SignIn = func(context.Context) (recover.Cloud, error) { return h.Cloud, nil }
	}
	if o.Interval == 0 {
		o.Interval = 200 * time.Millisecond
	}
	deps := guard.Deps{Settings: h.Settings, Hypervisor: h.HV}
	deps.Settle = 300 * time.Millisecond
	g, err := guard.New(deps, o, shelf, inherited)
	recovertest.Must(t, err)
	log := &recovertest.Buffer{}
	ctx, cancel := context.WithCancel(zerolog.New(log).Level(zerolog.InfoLevel).WithContext(context.Background()))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- g.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("the guard ended at once: %v", err)
	}
	var once sync.Once
	var result error
	stop := func() error {
		once.Do(func() { cancel(); result = <-ended })
		return result
	}
	t.Cleanup(func() { stop() })
	return &guarding{Guard: g, t: t, h: h, log: log, stop: stop}
}

// await waits until the guard's status is so.
func (g *guarding) await(what string, ok func(guard.Status) bool) guard.Status {
	g.t.Helper()
	for end := time.Now().Add(patience.Limit()); ; time.Sleep(10 * time.Millisecond) {
		s, err := guard.Ask(context.Background(), g.h.Settings.StateDir)
		recovertest.Must(g.t, err)
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			g.t.Fatalf("%s: not in %s; the guard says %+v\n%s", what, patience.Limit(), s, g.log)
		}
	}
}

// paths are the paths of what is held, and whether they are deleted.
func (g *guarding) paths() map[string]bool {
	g.t.Helper()
	c, err := keeper.ConnectGuard(g.t.Context(), g.h.Settings.StateDir)
	recovertest.Must(g.t, err)
	defer c.Close()
	holds, err := c.List(g.t.Context())
	recovertest.Must(g.t, err)
	paths := map[string]bool{}
	for _, h := range holds {
		meta, err := pin.MetaOf(h)
		recovertest.Must(g.t, err)
		paths[meta.Path] = h.Links == 0
	}
	return paths
}

// awaitScan waits for the guard's first full scan.
func (g *guarding) awaitScan() {
	g.t.Helper()
	g.await("the first scan", func(s guard.Status) bool { return !s.Scanned.IsZero() })
}

// hasContent checks that the guest's files are what they were.
func hasContent(t *testing.T, g *recovertest.Guest) {
	t.Helper()
	for path, want := range g.Content {
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) && !strings.HasSuffix(path, ".log") {
			t.Errorf("%s is not what it was: %v", path, err)
		}
	}
}
