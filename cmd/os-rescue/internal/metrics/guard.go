package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

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
	for _, d := range []*prometheus.Desc{c.instances, c.heldFiles, c.heldBytes, c.deletedFiles, c.deletedBytes, c.scanned, c.scanAge,
		c.incidents, c.seen, c.released, c.problems, c.guard, c.descriptions.build} {
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
// read the guard's memory.
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
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	return mux, nil
}

const (
	requestTime  = 10 * time.Second // to read a request
	responseTime = 30 * time.Second // to answer it
	idleTime     = 2 * time.Minute
	stopTime     = 2 * time.Second // for answers in progress when the server ends
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
		WriteTimeout: responseTime, IdleTimeout: idleTime, MaxHeaderBytes: 16 << 10}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
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
