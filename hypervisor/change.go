package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
)

const (
	// goneLimit bounds Destroy's wait after libvirt's own success, and gonePoll is the
	// interval of its checks. virDomainDestroy itself waits up to 40 s for the process
	// (virProcessKillPainfully in libvirt's src/util/virprocess.c).
	goneLimit = 30 * time.Second
	gonePoll  = 100 * time.Millisecond
)

// change is one state-changing call. It is issued only while the state that it leads
// to is not reached, so it can be repeated after a broken connection.
type change struct {
	name string // "suspending"
	// reached checks the state: before the call (issued false), and after a call that
	// failed or whose answer was lost (issued true). An error ends the change.
	reached func(ctx context.Context, dom *libvirt.Domain, name string, issued bool) (bool, error)
	call    string // virDomainSuspend
	do      func(dom *libvirt.Domain) error
	// gone: the change succeeds if the domain vanishes after the call.
	gone bool
}

// apply carries out a change. ctx ends it until the call is issued. After that it goes
// on until the outcome is known or libvirt is unavailable for c.retryFor.
func (c *connections) apply(ctx context.Context, uuid string, ch change) error {
	a := &attempt{ch: ch, uuid: uuid}
	lasting, name := context.WithoutCancel(ctx), ""
	_, err := retry(lasting, c, func() (string, error) {
		if !a.issued && ctx.Err() != nil {
			return "", backoff.Permanent(context.Cause(ctx))
		}
		seen, err := onConnection(lasting, c, func(conn *libvirt.Connect) (string, error) {
			return a.run(ctx, conn)
		})
		if seen != "" {
			name = seen
		}
		return name, err
	})
	switch {
	case err == nil:
		return nil
	case a.issued && errors.Is(err, recover.ErrUnavailable):
		return fmt.Errorf("%s %s: it is not known whether it happened: %w", ch.name, subject(uuid, name), err)
	default:
		return fmt.Errorf("%s %s: %w", ch.name, subject(uuid, name), err)
	}
}

// attempt is a change in progress, over as many connections as it takes.
type attempt struct {
	ch     change
	uuid   string
	issued bool // the call has been made: it may have happened
}

// run checks the state, makes the call if needed, and checks again if the call does
// not show the outcome. It returns the domain's name if it is known.
func (a *attempt) run(ctx context.Context, conn *libvirt.Connect) (string, error) {
	if a.issued {
		a.settle(ctx, conn)
	}
	name, done, err := a.look(ctx, conn)
	if done || err != nil {
		return name, err
	}
	dom, err := lookup(ctx, conn, a.uuid)
	if err != nil {
		return name, err
	}
	defer func() { _ = dom.Free() }()
	if !a.issued && ctx.Err() != nil {
		return name, context.Cause(ctx)
	}
	a.issued = true
	callErr := timed(ctx, a.ch.call, name, func() error { return a.ch.do(dom) })
	if callErr == nil && !a.ch.gone || callErr != nil && !alive(conn) {
		return name, callErr
	}
	for start := time.Now(); ; time.Sleep(gonePoll) {
		_, done, err := a.look(ctx, conn)
		switch {
		case done:
			return name, nil
		case err != nil:
			return name, errors.Join(callErr, err)
		case callErr != nil:
			return name, callErr
		case time.Since(start) > goneLimit:
			return name, fmt.Errorf("%w: it is still active %s after its end", ErrState, goneLimit)
		}
	}
}

// settle waits until a daemon that has just started knows the domain's real state. At
// first the daemon answers with the state that it had saved, and shows a domain as
// active whose start was interrupted and which it is about to kill. Then it asks QEMU,
// under the domain's job (qemuProcessReconnect in libvirt's src/qemu/qemu_process.c).
// The memory statistics take that job too, so they are answered afterwards; their
// values are not used.
func (a *attempt) settle(ctx context.Context, conn *libvirt.Connect) {
	dom, err := lookup(ctx, conn, a.uuid)
	if err != nil {
		return
	}
	defer func() { _ = dom.Free() }()
	_ = timed(ctx, "virDomainMemoryStats", a.uuid, func() error {
		_, err := dom.MemoryStats(uint32(libvirt.DOMAIN_MEMORY_STAT_NR), 0)
		return err
	})
}

// look reports whether the domain is in the state that the change leads to.
func (a *attempt) look(ctx context.Context, conn *libvirt.Connect) (name string, done bool, err error) {
	dom, err := lookup(ctx, conn, a.uuid)
	if err == nil {
		defer func() { _ = dom.Free() }()
		if name, err = dom.GetName(); err != nil {
			return "", false, mapped("virDomainGetName", err)
		}
		done, err = a.ch.reached(ctx, dom, name, a.issued)
	}
	if a.ch.gone && a.issued && errors.Is(err, recover.ErrNoDomain) {
		return name, true, nil
	}
	return name, done && err == nil, err
}
