package recover

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// guarding is a guard that runs on a host of the tests.
type guarding struct {
	*Guard
	t    testing.TB
	h    *host
	log  *syncBuffer
	stop func() error
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startGuard starts a guard of a host in this process, and ends it with the test.
func startGuard(h *host, o GuardOptions, shelf Shelf, inherited []*os.File) *guarding {
	t := h.t
	t.Helper()
	if h.cloud != nil && o.SignIn == nil {
		o.SignIn = func(context.Context) (Cloud, error) { return h.cloud, nil }
	}
	if o.Interval == 0 {
		o.Interval = 200 * time.Millisecond
	}
	deps := GuardDeps{Settings: h.settings, Hypervisor: h.hv}
	deps.Settle = 300 * time.Millisecond
	g, err := NewGuard(deps, o, shelf, inherited)
	must(t, err)
	log := &syncBuffer{}
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
func (g *guarding) await(what string, ok func(GuardStatus) bool) GuardStatus {
	g.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, err := AskGuard(context.Background(), g.h.settings.StateDir)
		must(g.t, err)
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			g.t.Fatalf("%s: not in 20 s; the guard says %+v\n%s", what, s, g.log)
		}
	}
}

// paths are the paths of what is held, and whether they are deleted.
func (g *guarding) paths() map[string]bool {
	g.t.Helper()
	c, err := keeper.ConnectGuard(g.t.Context(), g.h.settings.StateDir)
	must(g.t, err)
	defer c.Close()
	holds, err := c.List(g.t.Context())
	must(g.t, err)
	paths := map[string]bool{}
	for _, h := range holds {
		var meta pinMeta
		must(g.t, json.Unmarshal(h.Meta, &meta))
		paths[meta.Path] = h.Links == 0
	}
	return paths
}

// awaitScan waits for the guard's first full scan.
func (g *guarding) awaitScan() {
	g.t.Helper()
	g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
}

// hasContent checks that the guest's files are what they were.
func hasContent(t *testing.T, g *testGuest) {
	t.Helper()
	for path, want := range g.content {
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) && !strings.HasSuffix(path, ".log") {
			t.Errorf("%s is not what it was: %v", path, err)
		}
	}
}
