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
	"golang.org/x/sync/singleflight"
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
	// A daemon that answers no ping for 5 s × 3 is given up by the client
	// library, and every call that waits for it fails
	// (https://libvirt.org/html/libvirt-libvirt-host.html#virConnectSetKeepAlive).
	keepAliveSeconds = 5
	keepAliveCount   = 3
	// Keepalive starts after the handshake, so the handshake has its own limit.
	openLimit = 15 * time.Second
)

// Options say which libvirt to talk to.
type Options struct {
	URI      string        // libvirt's connection URI; DefaultURI when empty
	RunDir   string        // where libvirt's QEMU driver keeps NAME.pid; DefaultRunDir when empty
	RetryFor time.Duration // how long a broken connection is opened again; DefaultRetryFor when 0
}

// Client is one host's libvirt. It is safe for concurrent use.
type Client struct {
	uri      string
	shownURI string // without a password
	runDir   string
	retryFor time.Duration
	opening  singleflight.Group

	mu     sync.Mutex
	conn   *libvirt.Connect // nil when there is none
	closed bool
}

var _ recover.Hypervisor = (*Client)(nil)

// Open connects to libvirt once, without trying again. The process must have
// called StartEventLoop before. It returns an error that wraps
// recover.ErrUnavailable when libvirt can't be reached in 15 s. The caller
// closes the Client.
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
	conn, err := c.acquire(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connecting to %s: %w", c.shownURI, context.Cause(ctx))
		}
		return nil, unavailable(c.shownURI, err)
	}
	c.release(conn)
	return c, nil
}

// Close lets the connection go. Calls under way keep it until they end; later
// ones return ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.conn == nil {
		return nil
	}
	_, err := c.conn.Close()
	c.conn = nil
	if err != nil {
		return fmt.Errorf("closing the connection to %s: %w", c.shownURI, err)
	}
	return nil
}

// acquire returns the connection, opened if there is none, with a reference of
// its own for release. It tries once.
func (c *Client) acquire(ctx context.Context) (*libvirt.Connect, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if conn, err := c.current(); conn != nil || err != nil {
		return conn, err
	}
	// virConnectOpen can't be given up: a daemon that hangs in the handshake
	// costs one thread, whose late success the next caller finds.
	opened := c.opening.DoChan("open", func() (any, error) { return nil, c.open(ctx) })
	limit := time.NewTimer(openLimit)
	defer limit.Stop()
	select {
	case r := <-opened:
		if r.Err != nil {
			return nil, r.Err
		}
	case <-limit.C:
		return nil, fmt.Errorf("virConnectOpen: no answer for %s", openLimit)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	conn, err := c.current()
	if conn == nil && err == nil {
		err = errors.New("virConnectOpen: the new connection broke at once")
	}
	return conn, err
}

// current returns the living connection with a reference, or nil.
func (c *Client) current() (*libvirt.Connect, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if c.conn == nil {
		return nil, nil
	}
	if !alive(c.conn) {
		_, _ = c.conn.Close()
		c.conn = nil
		return nil, nil
	}
	if err := c.conn.Ref(); err != nil {
		return nil, mapped("virConnectRef", err)
	}
	return c.conn, nil
}

func (c *Client) open(ctx context.Context) error {
	var conn *libvirt.Connect
	err := timed(ctx, "virConnectOpen", "", func() (err error) {
		conn, err = libvirt.NewConnect(c.uri)
		return err
	})
	if err != nil {
		return err
	}
	err = timed(ctx, "virConnectSetKeepAlive", "", func() error {
		return conn.SetKeepAlive(keepAliveSeconds, keepAliveCount)
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.closed {
		err = ErrClosed
	}
	if err != nil {
		_, _ = conn.Close()
		return err
	}
	if c.conn != nil { // another opening was faster
		_, _ = c.conn.Close()
	}
	c.conn = conn
	return nil
}

// release gives acquire's reference back. The lock orders it with the last one,
// which writes to the Connect.
func (c *Client) release(conn *libvirt.Connect) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = conn.Close()
}

// read runs a harmless f, again when the connection broke under it, for
// c.retryFor. When ctx ends f is left to itself (libvirt can't cancel a call)
// and its result dropped.
func read[T any](ctx context.Context, c *Client, f func(*libvirt.Connect) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	return retry(ctx, c, func() (T, error) {
		var none T
		conn, err := c.acquire(ctx)
		if err != nil {
			return none, err
		}
		done := make(chan result, 1)
		go func() {
			defer c.release(conn)
			value, err := f(conn)
			done <- result{value, c.broken(conn, err)}
		}()
		select {
		case r := <-done:
			return r.value, r.err
		case <-ctx.Done():
			return none, backoff.Permanent(context.Cause(ctx))
		}
	})
}

// retry runs f until it succeeds, fails for good (backoff.Permanent), or
// c.retryFor is over.
func retry[T any](ctx context.Context, c *Client, f func() (T, error)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	pace := backoff.NewExponentialBackOff()
	pace.InitialInterval = 100 * time.Millisecond
	pace.MaxInterval = 3 * time.Second
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
		backoff.WithBackOff(pace), backoff.WithMaxElapsedTime(c.retryFor),
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

// broken makes err permanent unless the connection died under the call.
func (c *Client) broken(conn *libvirt.Connect, err error) error {
	if err == nil {
		return nil
	}
	if alive(conn) {
		return backoff.Permanent(err)
	}
	return err
}

// timed runs one libvirt call and logs it: before at trace, after at debug.
// domain is a name or UUID, empty when the call is about the host.
func timed(ctx context.Context, call, domain string, f func() error) error {
	log := zerolog.Ctx(ctx)
	log.Trace().Str("call", call).Str("domain", domain).Msg("libvirt call begins")
	start := time.Now()
	err := f()
	log.Debug().Str("call", call).Str("domain", domain).Dur("took", time.Since(start)).Err(err).Msg("libvirt call")
	return mapped(call, err)
}

// lookup finds the domain of uuid; the caller frees it.
func lookup(ctx context.Context, conn *libvirt.Connect, uuid string) (*libvirt.Domain, error) {
	var dom *libvirt.Domain
	err := timed(ctx, "virDomainLookupByUUIDString", uuid, func() (err error) {
		dom, err = conn.LookupDomainByUUIDString(uuid)
		return err
	})
	return dom, err
}

// subject names a domain for people.
func subject(uuid, name string) string {
	if name == "" {
		return "domain " + uuid
	}
	return fmt.Sprintf("domain %s (%s)", name, uuid)
}
