package hypervisor

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"
	"libvirt.org/go/libvirt"
)

// eventsPoll is the interval at which the connection for events is checked. The client
// library knows its state, so no call is made.
const eventsPoll = time.Second

// events tell which domains change.
type events struct {
	*connections
}

// Events sends the UUID of a domain at every lifecycle event
// (VIR_DOMAIN_EVENT_ID_LIFECYCLE,
// https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainEventType), as
// recover.DomainEvents describes. It has its own connection, which is closed when ctx
// ends, or, if the daemon hangs then, at the keepalive's limit. ErrClosed after Close;
// a later Close does not end it.
func (e events) Events(ctx context.Context) (<-chan string, error) {
	changes := newChanges()
	s, err := e.subscribe(ctx, changes)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, ErrClosed):
			return nil, err
		}
		return nil, unavailable(e.shownURI, err)
	}
	out := make(chan string)
	go changes.send(ctx, out)
	go e.keepSubscribed(ctx, s, changes)
	return out, nil
}

// keepSubscribed subscribes again whenever the connection breaks, until ctx ends.
func (e events) keepSubscribed(ctx context.Context, s *subscription, changes *changes) {
	log := zerolog.Ctx(ctx)
	for {
		s.wait(ctx)
		s.close(ctx)
		if ctx.Err() != nil {
			return
		}
		log.Warn().Str("uri", e.shownURI).Msg("the connection that libvirt's events come on is broken: opening it again")
		if s = e.resubscribe(ctx, changes); s == nil {
			return
		}
		log.Info().Str("uri", e.shownURI).Msg("libvirt's events come again")
		// Only now: changes from here on cause events again.
		changes.add("")
	}
}

// resubscribe tries until it succeeds. nil when ctx has ended or the client is closed.
func (e events) resubscribe(ctx context.Context, changes *changes) *subscription {
	pace := pace()
	for {
		s, err := e.subscribe(ctx, changes)
		if err == nil {
			return s
		}
		if ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return nil
		}
		wait := pace.NextBackOff()
		zerolog.Ctx(ctx).Debug().Err(err).Dur("wait", wait).Str("uri", e.shownURI).Msg("libvirt's events do not come yet")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// subscription is a connection that receives events.
type subscription struct {
	conn *libvirt.Connect
	id   int // the callback's
}

// subscribe opens a connection and adds its events to changes. If the daemon hangs, it
// fails at the keepalive's limit. When ctx ends, it does not wait for the daemon.
func (e events) subscribe(ctx context.Context, changes *changes) (*subscription, error) {
	if e.isClosed() {
		return nil, ErrClosed
	}
	conn, err := e.openInTime(ctx)
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

// register takes ownership of the connection and closes it on an error.
func register(ctx context.Context, conn *libvirt.Connect, changes *changes) (*subscription, error) {
	s := &subscription{conn: conn}
	err := timed(ctx, "virConnectDomainEventRegisterAny", "", func() (err error) {
		s.id, err = conn.DomainEventLifecycleRegister(nil, func(_ *libvirt.Connect, dom *libvirt.Domain, _ *libvirt.DomainEventLifecycle) {
			// The event loop, and with it every keepalive, waits for this function.
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

// close removes the callback, which holds a reference to the connection: otherwise the
// connection would never be freed. The local part of that happens on a broken
// connection too (remoteConnectDomainEventDeregisterAny in libvirt's
// src/remote/remote_driver.c).
func (s *subscription) close(ctx context.Context) {
	_ = timed(ctx, "virConnectDomainEventDeregisterAny", "", func() error { return s.conn.DomainEventDeregister(s.id) })
	_ = timed(ctx, "virConnectClose", "", func() error { _, err := s.conn.Close(); return err })
}
