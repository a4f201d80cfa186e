package hypervisor

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"
	"libvirt.org/go/libvirt"
)

// eventsPoll is how often the connection that carries the events is asked whether
// it stands. The client library knows: no call is made.
const eventsPoll = time.Second

// Events tells of every change of a domain's life (VIR_DOMAIN_EVENT_ID_LIFECYCLE,
// https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainEventType), as
// recover.DomainEvents says. It has a connection of its own, which is closed when
// ctx ends; with a daemon that hangs then, when the keepalive gives it up.
// ErrClosed after Close; a Close later does not end it.
func (c *Client) Events(ctx context.Context) (<-chan string, error) {
	changes := newChanges()
	s, err := c.subscribe(ctx, changes)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, ErrClosed):
			return nil, err
		}
		return nil, unavailable(c.shownURI, err)
	}
	out := make(chan string)
	go changes.send(ctx, out)
	go c.keepSubscribed(ctx, s, changes)
	return out, nil
}

// keepSubscribed subscribes again whenever the connection broke, until ctx ends.
func (c *Client) keepSubscribed(ctx context.Context, s *subscription, changes *changes) {
	log := zerolog.Ctx(ctx)
	for {
		s.wait(ctx)
		s.close(ctx)
		if ctx.Err() != nil {
			return
		}
		log.Warn().Str("uri", c.shownURI).Msg("the connection that libvirt's events come on is broken: opening it again")
		if s = c.resubscribe(ctx, changes); s == nil {
			return
		}
		log.Info().Str("uri", c.shownURI).Msg("libvirt's events come again")
		// Only now: what is read from here on is told when it changes.
		changes.add("")
	}
}

// resubscribe tries until it succeeds. nil when ctx has ended or the client is closed.
func (c *Client) resubscribe(ctx context.Context, changes *changes) *subscription {
	pace := pace()
	for {
		s, err := c.subscribe(ctx, changes)
		if err == nil {
			return s
		}
		if ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return nil
		}
		wait := pace.NextBackOff()
		zerolog.Ctx(ctx).Debug().Err(err).Dur("wait", wait).Str("uri", c.shownURI).Msg("libvirt's events do not come yet")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// subscription is a connection on which events come.
type subscription struct {
	conn *libvirt.Connect
	id   int // the callback's
}

// subscribe opens a connection and has its events added to changes. A daemon that
// hangs ends it with the keepalive; it is left to itself when ctx ends.
func (c *Client) subscribe(ctx context.Context, changes *changes) (*subscription, error) {
	if c.isClosed() {
		return nil, ErrClosed
	}
	conn, err := c.openInTime(ctx)
	if err != nil {
		return nil, err
	}
	type result struct {
		s   *subscription
		err error
	}
	done := make(chan result)
	go func() {
		s, err := register(ctx, conn, changes)
		select {
		case done <- result{s, err}:
		case <-ctx.Done():
			if err == nil {
				s.close(ctx)
			}
		}
	}()
	select {
	case r := <-done:
		return r.s, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// register takes the connection over: on an error it is closed.
func register(ctx context.Context, conn *libvirt.Connect, changes *changes) (*subscription, error) {
	s := &subscription{conn: conn}
	err := timed(ctx, "virConnectDomainEventRegisterAny", "", func() (err error) {
		s.id, err = conn.DomainEventLifecycleRegister(nil, func(_ *libvirt.Connect, dom *libvirt.Domain, _ *libvirt.DomainEventLifecycle) {
			// The event loop, and with it every keepalive, waits for this.
			uuid, err := dom.GetUUIDString()
			if err != nil {
				uuid = ""
			}
			changes.add(uuid)
		})
		return err
	})
	if err != nil {
		_, _ = conn.Close()
		return nil, err
	}
	return s, nil
}

// wait returns when the connection is broken or ctx has ended.
func (s *subscription) wait(ctx context.Context) {
	tick := time.NewTicker(eventsPoll)
	defer tick.Stop()
	for alive(s.conn) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// close gives up the callback, which holds a reference to the connection: without
// that the connection would never be let go. What is local of it happens on a
// broken connection too (remoteConnectDomainEventDeregisterAny in libvirt's
// src/remote/remote_driver.c).
func (s *subscription) close(ctx context.Context) {
	_ = timed(ctx, "virConnectDomainEventDeregisterAny", "", func() error { return s.conn.DomainEventDeregister(s.id) })
	_ = timed(ctx, "virConnectClose", "", func() error { _, err := s.conn.Close(); return err })
}
