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

// connections are those to one libvirt, opened again when they break.
//
// Every connection serves one call at a time, and there are as many connections as
// calls in progress. When a daemon hangs during two calls of one connection,
// libvirt's client (9.0) ends one of them at the keepalive's limit, leaves the other
// waiting for ever, and may crash the process in it.
type connections struct {
	uri      string
	shownURI string // without a password
	retryFor time.Duration

	mu     sync.Mutex
	idle   []*libvirt.Connect
	closed bool
}

// newConnections opens none yet.
func newConnections(uri string, retryFor time.Duration) *connections {
	c := &connections{uri: uri, shownURI: uri, retryFor: retryFor}
	if u, err := url.Parse(uri); err == nil {
		c.shownURI = u.Redacted()
	}
	return c
}

// Close closes the connections; those of calls in progress are closed when the calls
// end. Later calls return ErrClosed.
func (c *connections) Close() error {
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
func (c *connections) take(ctx context.Context) (*libvirt.Connect, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if conn, err := c.takeIdle(); conn != nil || err != nil {
		return conn, err
	}
	return c.openInTime(ctx)
}

// openInTime opens a connection, which the caller closes or puts.
func (c *connections) openInTime(ctx context.Context) (*libvirt.Connect, error) {
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

func (c *connections) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// takeIdle returns a living idle connection, or nil.
func (c *connections) takeIdle() (*libvirt.Connect, error) {
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
func (c *connections) put(conn *libvirt.Connect) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !alive(conn) {
		_, _ = conn.Close()
		return
	}
	c.idle = append(c.idle, conn)
}

func (c *connections) open(ctx context.Context) (*libvirt.Connect, error) {
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
func read[T any](ctx context.Context, c *connections, f func(*libvirt.Connect) (T, error)) (T, error) {
	return retry(ctx, c, func() (T, error) { return onConnection(ctx, c, f) })
}

// onConnection runs f on its own connection. Its error is permanent, for retry,
// unless the connection broke. When ctx ends, it does not wait for f.
func onConnection[T any](ctx context.Context, c *connections, f func(*libvirt.Connect) (T, error)) (T, error) {
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
func retry[T any](ctx context.Context, c *connections, f func() (T, error)) (T, error) {
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
