package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"
	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
)

// Defaults of Options.
const (
	DefaultURI      = "qemu:///system"
	DefaultRunDir   = "/run/libvirt/qemu"
	DefaultRetryFor = 60 * time.Second
)

const (
	// If a daemon answers no ping for 5 s × 3, the client library closes the
	// connection and every waiting call fails
	// (https://libvirt.org/html/libvirt-libvirt-host.html#virConnectSetKeepAlive).
	keepAliveSeconds = 5
	keepAliveCount   = 3
	// Keepalive starts after the handshake, so the handshake has its own limit.
	openLimit = 15 * time.Second
)

// Options select the libvirt to connect to.
type Options struct {
	URI      string        // libvirt's connection URI; DefaultURI when empty
	RunDir   string        // directory in which libvirt's QEMU driver keeps NAME.pid; DefaultRunDir when empty
	RetryFor time.Duration // limit for reopening a broken connection; DefaultRetryFor when 0
	// Lazy connects at the first call: for a daemon, which must start without libvirt
	// too.
	Lazy bool
}

// Client is one host's libvirt. It is safe for concurrent use.
//
// Every connection serves one call at a time, and there are as many connections as
// calls in progress. When a daemon hangs during two calls of one connection,
// libvirt's client (9.0) ends one of them at the keepalive's limit, leaves the other
// waiting for ever, and may crash the process in it.
type Client struct {
	uri      string
	shownURI string // without a password
	runDir   string
	retryFor time.Duration

	mu     sync.Mutex
	idle   []*libvirt.Connect
	closed bool
}

var _ recover.Hypervisor = (*Client)(nil)

// Open connects to libvirt once, without a retry, or not at all with Options.Lazy.
// The process must have called StartEventLoop before. The error wraps
// recover.ErrUnavailable when libvirt can't be reached in 15 s. The caller closes the
// Client.
func Open(ctx context.Context, opts Options) (*Client, error) {
	c := &Client{uri: opts.URI, runDir: opts.RunDir, retryFor: opts.RetryFor}
	if c.uri == "" {
		c.uri = DefaultURI
	}
	if c.runDir == "" {
		c.runDir = DefaultRunDir
	}
	if c.retryFor == 0 {
		c.retryFor = DefaultRetryFor
	}
	c.shownURI = c.uri
	if u, err := url.Parse(c.uri); err == nil {
		c.shownURI = u.Redacted()
	}
	if opts.Lazy {
		return c, nil
	}
	conn, err := c.take(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connecting to %s: %w", c.shownURI, context.Cause(ctx))
		}
		return nil, unavailable(c.shownURI, err)
	}
	c.put(conn)
	return c, nil
}

// Close closes the connections; those of calls in progress are closed when the calls
// end. Later calls return ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for _, conn := range c.idle {
		if _, err := conn.Close(); err != nil {
			errs = append(errs, fmt.Errorf("closing the connection to %s: %w", c.shownURI, err))
		}
	}
	c.idle = nil
	return errors.Join(errs...)
}

// take returns a connection for the caller alone, an idle or a new one. The caller
// gives it back with put. take tries once.
func (c *Client) take(ctx context.Context) (*libvirt.Connect, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if conn, err := c.takeIdle(); conn != nil || err != nil {
		return conn, err
	}
	return c.openInTime(ctx)
}

// openInTime opens a connection, which the caller closes or puts.
func (c *Client) openInTime(ctx context.Context) (*libvirt.Connect, error) {
	type result struct {
		conn *libvirt.Connect
		err  error
	}
	opened := make(chan result)
	givenUp := make(chan struct{})
	defer close(givenUp)
	go func() {
		conn, err := c.open(ctx)
		select {
		case opened <- result{conn, err}:
		case <-givenUp: // virConnectOpen can't be cancelled: it costs a thread until it ends
			if err == nil {
				c.put(conn)
			}
		}
	}()
	limit := time.NewTimer(openLimit)
	defer limit.Stop()
	select {
	case r := <-opened:
		return r.conn, r.err
	case <-limit.C:
		return nil, fmt.Errorf("virConnectOpen: no answer for %s", openLimit)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// takeIdle returns a living idle connection, or nil.
func (c *Client) takeIdle() (*libvirt.Connect, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	for len(c.idle) > 0 {
		conn := c.idle[len(c.idle)-1]
		c.idle = c.idle[:len(c.idle)-1]
		if alive(conn) {
			return conn, nil
		}
		_, _ = conn.Close()
	}
	return nil, nil
}

// put gives a connection back.
func (c *Client) put(conn *libvirt.Connect) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !alive(conn) {
		_, _ = conn.Close()
		return
	}
	c.idle = append(c.idle, conn)
}

func (c *Client) open(ctx context.Context) (*libvirt.Connect, error) {
	var conn *libvirt.Connect
	err := timed(ctx, "virConnectOpen", "", func() (err error) {
		conn, err = libvirt.NewConnect(c.uri)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = timed(ctx, "virConnectSetKeepAlive", "", func() error {
		return conn.SetKeepAlive(keepAliveSeconds, keepAliveCount)
	})
	if err != nil {
		_, _ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// read runs f, which changes nothing, and runs it again for c.retryFor when the
// connection breaks. When ctx ends, read does not wait for f (libvirt can't cancel a
// call) and drops its result.
func read[T any](ctx context.Context, c *Client, f func(*libvirt.Connect) (T, error)) (T, error) {
	return retry(ctx, c, func() (T, error) { return onConnection(ctx, c, f) })
}

// onConnection runs f on its own connection. Its error is permanent, for retry,
// unless the connection broke. When ctx ends, it does not wait for f.
func onConnection[T any](ctx context.Context, c *Client, f func(*libvirt.Connect) (T, error)) (T, error) {
	var none T
	conn, err := c.take(ctx)
	if err != nil {
		return none, err
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f(conn)
		if err != nil && alive(conn) {
			err = backoff.Permanent(err)
		}
		c.put(conn)
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, backoff.Permanent(context.Cause(ctx))
	}
}

// retry runs f until it succeeds, returns a permanent error (backoff.Permanent), or
// c.retryFor is over.
func retry[T any](ctx context.Context, c *Client, f func() (T, error)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	final := false
	value, err := backoff.Retry(ctx, func() (T, error) {
		value, err := f()
		var permanent *backoff.PermanentError
		final = errors.As(err, &permanent)
		if errors.Is(err, ErrClosed) {
			final = true
			err = backoff.Permanent(err)
		}
		return value, err
	},
		backoff.WithBackOff(pace()), backoff.WithMaxElapsedTime(c.retryFor),
		backoff.WithNotify(func(err error, wait time.Duration) {
			zerolog.Ctx(ctx).Warn().Err(err).Dur("wait", wait).Str("uri", c.shownURI).
				Msg("the connection to libvirt is broken: opening it again")
		}))
	switch {
	case err == nil:
		return value, nil
	case ctx.Err() != nil:
		return none, context.Cause(ctx)
	case final:
		return none, err
	default:
		return none, unavailable(c.shownURI, err)
	}
}

// pace is the waiting times before a broken connection is opened again.
func pace() *backoff.ExponentialBackOff {
	pace := backoff.NewExponentialBackOff()
	pace.InitialInterval = 100 * time.Millisecond
	pace.MaxInterval = 3 * time.Second
	return pace
}

// alive reports whether the client library considers the connection open.
func alive(conn *libvirt.Connect) bool {
	ok, err := conn.IsAlive()
	return err == nil && ok
}

// timed runs one libvirt call and logs its begin at level trace and its end at level
// debug. domain is a name or UUID, empty when the call is about the host.
func timed(ctx context.Context, call, domain string, f func() error) error {
	log := zerolog.Ctx(ctx)
	log.Trace().Str("call", call).Str("domain", domain).Msg("libvirt call begins")
	start := time.Now()
	err := f()
	log.Debug().Str("call", call).Str("domain", domain).Dur("took", time.Since(start)).Err(err).Msg("libvirt call")
	return mapped(call, err)
}

// lookup finds a domain by its UUID; the caller frees it.
func lookup(ctx context.Context, conn *libvirt.Connect, uuid string) (*libvirt.Domain, error) {
	var dom *libvirt.Domain
	err := timed(ctx, "virDomainLookupByUUIDString", uuid, func() (err error) {
		dom, err = conn.LookupDomainByUUIDString(uuid)
		return err
	})
	return dom, err
}

// subject names a domain in a message.
func subject(uuid, name string) string {
	if name == "" {
		return "domain " + uuid
	}
	return fmt.Sprintf("domain %s (%s)", name, uuid)
}
