package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
)

// guardCollector exports the status of a guard at the time of the request.
type guardCollector struct {
	descriptions
	build    Build
	snapshot func() guard.Status
	now      func() time.Time
}

// Describe is part of prometheus.Collector.
func (c *guardCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.instances, c.heldFiles, c.heldBytes, c.notHeld, c.deletedFiles, c.deletedBytes,
		c.scanned, c.scanAge, c.incidents, c.seen, c.released, c.problems, c.guard, c.descriptions.build} {
		ch <- d
	}
}

// Collect is part of prometheus.Collector. Before the guard's first scan it exports
// nothing about the instances: 0 would mean that all is well.
func (c *guardCollector) Collect(ch chan<- prometheus.Metric) {
	g := c.snapshot()
	s := sink{c.descriptions, ch}
	if !g.Scanned.IsZero() {
		verdicts := map[recover.Verdict]int{}
		for _, i := range g.Report.Instances {
			verdicts[i.Verdict]++
		}
		s.looked(verdicts, g.Scanned, c.now())
	}
	s.guarded(g)
	s.deleted(g.Held.DeletedFiles, g.Held.DeletedBytes)
	s.gauge(c.guard, oneIf(g.Running))
	s.info(c.build)
}

// Handler serves /metrics: the status that snapshot returns, and the metrics of the
// process. snapshot is called at every scrape, from several goroutines, and must only
// read the guard's memory. A reader that is slow keeps no other one from its answer.
func Handler(snapshot func() guard.Status, build Build) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		&guardCollector{descriptions: describe(), build: build, snapshot: snapshot, now: time.Now},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	mux := http.NewServeMux()
	// The answer is whole in memory before any of it is sent: only then has a slow reader no
	// part in MaxRequestsInFlight.
	answer := promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	mux.Handle("GET /metrics", http.TimeoutHandler(answer, responseTime, "the metrics took too long"))
	return mux, nil
}

// What the readers of the metrics, which may be anybody, can take of the guard: mostReaders
// descriptors, and each for no longer than these times. Further connections wait in the
// kernel's queue (listen(2)), where they cost the guard nothing.
const (
	mostReaders  = 64
	requestTime  = 5 * time.Second  // to send a request
	responseTime = 5 * time.Second  // to make its answer
	readTime     = 10 * time.Second // to make and take its answer
	idleTime     = 30 * time.Second // Prometheus connects again, if it scrapes less often
	stopTime     = 2 * time.Second  // for answers in progress when the server ends
)

// Serve answers HTTP requests at addr ("127.0.0.1:9177") until ctx ends, which is no
// error. It returns at once if it can't listen at addr.
func Serve(ctx context.Context, addr string, handler http.Handler) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("serve metrics at %s: %w", addr, err)
	}
	return serve(ctx, l, handler)
}

func serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: requestTime, ReadTimeout: requestTime,
		WriteTimeout: readTime, IdleTimeout: idleTime, MaxHeaderBytes: 16 << 10,
		ErrorLog: log.New(io.Discard, "", 0)} // what a reader does wrong fills no log
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(netutil.LimitListener(l, mostReaders)) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve metrics at %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		_ = server.Close() // a client does not read its answer
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics at %s: %w", l.Addr(), err)
	}
	return nil
}
