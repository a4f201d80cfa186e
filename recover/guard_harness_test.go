package recover

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

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
	deps := h.engine().GuardDeps()
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
		s, err := g.h.engine().Guard(context.Background())
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

// destroyed ends a guest's QEMU, forgotten has libvirt forget the domain besides.
func (g *testGuest) destroyed()         { must(g.h.t, g.h.hv.Destroy(context.Background(), g.uuid)) }
func (g *testGuest) forgotten()         { g.destroyed(); g.h.hv.forget(g.uuid) }
func (g *testGuest) rm()                { must(g.h.t, os.RemoveAll(g.dir)) }
func offlineOf(g ...*testGuest) Options { o := options(g...); o.Offline = true; return o }

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

// fail has a method fail from now on, or with nil no longer.
func (c *fakeCloud) fail(method string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs[method] = err
}

// deletes has Nova have deleted an instance.
func (c *fakeCloud) deletes(uuid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.servers, uuid)
	if c.deleted == nil {
		c.deleted = map[string]bool{}
	}
	c.deleted[uuid] = true
}

// shelf is systemd's descriptor store as the guard sees it.
type shelf struct {
	mu    sync.Mutex
	files map[string]*os.File
}

func (s *shelf) StoreFD(name string, f *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[name] != nil {
		return fmt.Errorf("%s is there already", name)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	s.files[name] = os.NewFile(uintptr(fd), name)
	return err
}

func (s *shelf) RemoveFD(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[name]
	delete(s.files, name)
	return f.Close()
}

// inherit is what a new life gets.
func (s *shelf) inherit(t testing.TB) (all []*os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		all = append(all, os.NewFile(uintptr(fd), name))
	}
	return all
}
