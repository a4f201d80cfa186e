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
	// goneLimit is how long Destroy waits after libvirt's own success, and
	// gonePoll how often it looks. virDomainDestroy itself waits up to 40 s for
	// the process (virProcessKillPainfully in libvirt's src/util/virprocess.c).
	goneLimit = 30 * time.Second
	gonePoll  = 100 * time.Millisecond
)

// change is one state-changing call. It is issued only while the state that it
// leads to is not there, so it can be tried again after a broken connection.
type change struct {
	name string // "suspending"
	// reached looks at the state before the call (issued false), and after one
	// that failed or whose answer was lost (issued true). An error ends it.
	reached func(ctx context.Context, dom *libvirt.Domain, name string, issued bool) (bool, error)
	call    string // virDomainSuspend
	do      func(dom *libvirt.Domain) error
	// gone: a domain that vanished after the call is success.
	gone bool
}

// Suspend pauses the domain's CPUs and drains and flushes its block layer (QEMU's
// do_vm_stop in softmmu/cpus.c). A domain that is paused already, for whatever
// reason, is left as it is. Errors: recover.ErrNoDomain; ErrState when it is
// neither running nor paused, or was paused meanwhile for another reason;
// recover.ErrUnavailable, after which the domain may be paused or become so.
func (c *Client) Suspend(ctx context.Context, uuid string) error {
	return c.apply(ctx, uuid, change{
		name: "suspending", call: "virDomainSuspend",
		do: func(dom *libvirt.Domain) error { return dom.Suspend() },
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, issued bool) (bool, error) {
			s, err := stateOf(ctx, dom, name)
			switch {
			case err != nil:
				return false, err
			case s.state == recover.StateRunning:
				return false, nil
			case s.state != recover.StatePaused:
				return false, fmt.Errorf("%w: it is %s", ErrState, s.state)
			case issued && s.reason != recover.PauseUser:
				return false, fmt.Errorf("%w: it is paused, but for %s", ErrState, s.reason)
			default:
				return true, nil
			}
		},
	})
}

// Resume lets a paused domain run; running already is success. Errors:
// recover.ErrNoDomain; ErrState when it is neither; recover.ErrUnavailable, after
// which the domain may run.
func (c *Client) Resume(ctx context.Context, uuid string) error {
	return c.apply(ctx, uuid, change{
		name: "resuming", call: "virDomainResume",
		do: func(dom *libvirt.Domain) error { return dom.Resume() },
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, _ bool) (bool, error) {
			s, err := stateOf(ctx, dom, name)
			switch {
			case err != nil:
				return false, err
			case s.state == recover.StateRunning:
				return true, nil
			case s.state != recover.StatePaused:
				return false, fmt.Errorf("%w: it is %s", ErrState, s.state)
			default:
				return false, nil
			}
		},
	})
}

// Start boots a domain that is defined and not active, paused before its first
// instruction if asked; it then reads as paused by its user. Active already is
// success. A managed save image, where there is one, is restored by libvirt
// instead of a boot. Errors: recover.ErrNoDomain; recover.ErrUnavailable, after
// which the domain may be active; libvirt's own when QEMU can't start.
func (c *Client) Start(ctx context.Context, uuid string, paused bool) error {
	var flags libvirt.DomainCreateFlags
	if paused {
		flags = libvirt.DOMAIN_START_PAUSED
	}
	return c.apply(ctx, uuid, change{
		name: "starting", call: "virDomainCreateWithFlags",
		do: func(dom *libvirt.Domain) error { return dom.CreateWithFlags(flags) },
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, _ bool) (bool, error) {
			s, err := stateOf(ctx, dom, name)
			return s.active, err
		},
	})
}

// Destroy ends the domain's QEMU (SIGTERM, then SIGKILL) and waits until libvirt
// holds the domain for inactive. A domain that is not active is success, a
// transient one that is already forgotten is recover.ErrNoDomain. Errors: ErrState
// when somebody started the domain again under it; recover.ErrUnavailable, after
// which QEMU may be gone or about to be.
func (c *Client) Destroy(ctx context.Context, uuid string) error {
	type life struct {
		id  uint
		pid int
	}
	var first *life
	return c.apply(ctx, uuid, change{
		name: "destroying", call: "virDomainDestroy", gone: true,
		do: func(dom *libvirt.Domain) error { return dom.Destroy() },
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, issued bool) (bool, error) {
			s, err := stateOf(ctx, dom, name)
			if err != nil || !s.active {
				return err == nil, err
			}
			id, err := dom.GetID() // as of the look-up, no call
			if err != nil {
				return false, mapped("virDomainGetID", err)
			}
			now := life{id: id, pid: c.pid(name)}
			if first == nil {
				first = &now
			}
			if now.id != first.id || now.pid != first.pid && now.pid != 0 && first.pid != 0 {
				return false, fmt.Errorf("%w: its QEMU is gone, and somebody started it again", ErrState)
			}
			return false, nil
		},
	})
}

// Define makes the domain known from what XML returned. An inactive or unknown
// domain of that UUID gets this definition; doing it twice changes nothing.
// Errors: libvirt's own, which quote no secret; recover.ErrUnavailable.
func (c *Client) Define(ctx context.Context, xml string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("defining a domain: %w", context.Cause(ctx))
	}
	// Not given up half way, whatever becomes of ctx.
	_, err := read(context.WithoutCancel(ctx), c, func(conn *libvirt.Connect) (struct{}, error) {
		err := timed(ctx, "virDomainDefineXML", "", func() error {
			dom, err := conn.DomainDefineXML(xml)
			if err == nil {
				_ = dom.Free()
			}
			return err
		})
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("defining a domain: %w", err)
	}
	return nil
}

// apply carries out a change. Until the call is issued ctx ends it; from then on
// it goes on until the outcome is known or libvirt stays away for c.retryFor.
func (c *Client) apply(ctx context.Context, uuid string, ch change) error {
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
		return fmt.Errorf("%s %s: whether it happened is not known: %w", ch.name, subject(uuid, name), err)
	default:
		return fmt.Errorf("%s %s: %w", ch.name, subject(uuid, name), err)
	}
}

// attempt is a change on its way, over as many connections as it takes.
type attempt struct {
	ch     change
	uuid   string
	issued bool // the call has been made: it may have happened
}

// run looks, calls if needed, and looks again where the call does not tell. It
// returns the domain's name once it knows it.
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

// settle waits until a daemon that has just started knows the domain as it is. It
// answers first with the state it had saved, and shows a domain active that it is
// about to kill because its start was cut short; then it asks QEMU, under the
// domain's job (qemuProcessReconnect in libvirt's src/qemu/qemu_process.c). The
// statistics take that job too, so they come after it; nobody needs them.
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

// look tells whether the domain is where the change leads to.
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
