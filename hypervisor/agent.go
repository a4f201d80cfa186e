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

// agent asks the guests' own agents.
type agent struct {
	*connections
}

// Freeze asks the guest's agent to freeze every file system. It first checks that the
// agent answers, and then waits at most limit, in whole seconds, for the freeze. In
// detail:
//
//   - It sets the time limit with virDomainAgentSetResponseTimeout, because libvirt
//     waits for a freeze for ever by default, and afterwards restores that default
//     (QEMU_AGENT_WAIT in libvirt's src/qemu/qemu_agent.c). Meanwhile the limit
//     applies to other callers' agent commands too.
//   - libvirt synchronises with the agent before every command, for at most 5 s or
//     limit, whichever is smaller.
//   - A harmless command (guest-get-time) precedes the freeze. It distinguishes
//     "nobody answers" from "the freeze was sent and its answer is late".
//
// Errors: recover.ErrNoAgent when there is no channel, nobody listens at it, or the
// domain does not run: nothing was sent; recover.ErrNoDomain. After any other error
// the guest may be frozen or become so, and the caller must call Thaw.
func (a agent) Freeze(ctx context.Context, uuid string, limit time.Duration) error {
	if ctx.Err() != nil {
		return fmt.Errorf("freezing domain %s: %w", uuid, context.Cause(ctx))
	}
	sent := false
	name, err := retry(ctx, a.connections, func() (string, error) {
		name, err := a.withAgent(ctx, uuid, limit, func(dom *libvirt.Domain, name string) error {
			err := timed(ctx, "virDomainGetTime", name, func() error {
				_, _, err := dom.GetTime(0)
				return err
			})
			if noAgent(err) {
				return fmt.Errorf("%w: %w", recover.ErrNoAgent, err)
			}
			if ctx.Err() != nil { // checked last here: nothing is frozen yet
				return context.Cause(ctx)
			}
			sent = true
			// An agent that does not know guest-get-time, or refuses it, has answered.
			return timed(ctx, "virDomainFSFreeze", name, func() error { return dom.FSFreeze(nil, 0) })
		})
		if err != nil && sent { // never twice
			err = backoff.Permanent(err)
		}
		return name, err
	})
	if err != nil {
		return fmt.Errorf("freezing %s: %w", subject(uuid, name), err)
	}
	return nil
}

// Thaw undoes Freeze. It waits at most limit, in whole seconds, after up to 5 s in
// which libvirt synchronises with the agent. It succeeds if nothing is frozen: the
// agent then answers a count of 0. It is repeated after a broken connection, and once
// begun it does not end with ctx. Errors: recover.ErrNoAgent when no agent answers, or
// when the domain is paused, and its file systems stay as they are;
// recover.ErrNoDomain; recover.ErrUnavailable.
func (a agent) Thaw(ctx context.Context, uuid string, limit time.Duration) error {
	if ctx.Err() != nil {
		return fmt.Errorf("thawing domain %s: %w", uuid, context.Cause(ctx))
	}
	lasting := context.WithoutCancel(ctx)
	name, err := retry(lasting, a.connections, func() (string, error) {
		return a.withAgent(lasting, uuid, limit, func(dom *libvirt.Domain, name string) error {
			err := timed(ctx, "virDomainFSThaw", name, func() error { return dom.FSThaw(nil, 0) })
			if noAgent(err) {
				return fmt.Errorf("%w: %w", recover.ErrNoAgent, err)
			}
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("thawing %s: %w", subject(uuid, name), err)
	}
	return nil
}

// withAgent runs f with the agent's time limit set, and returns the domain's name if
// it is known. Once f has been called, withAgent waits for it even if ctx ends.
func (a agent) withAgent(
	ctx context.Context,
	uuid string,
	limit time.Duration,
	f func(dom *libvirt.Domain, name string) error,
) (string, error) {
	return onConnection(context.WithoutCancel(ctx), a.connections, func(conn *libvirt.Connect) (string, error) {
		dom, err := lookup(ctx, conn, uuid)
		if err != nil {
			return "", err
		}
		defer func() { _ = dom.Free() }()
		name, err := dom.GetName()
		if err != nil {
			return "", mapped("virDomainGetName", err)
		}
		s, err := stateOf(ctx, dom, name)
		if err != nil {
			return name, err
		}
		if s.state != recover.StateRunning {
			return name, fmt.Errorf("%w: the domain is %s", recover.ErrNoAgent, s.state)
		}
		seconds := max(1, int((limit+time.Second-1)/time.Second))
		err = timed(ctx, "virDomainAgentSetResponseTimeout", name, func() error {
			return dom.AgentSetResponseTimeout(seconds, 0)
		})
		if err != nil {
			return name, err
		}
		err = f(dom, name)
		// BLOCK is a domain's initial value; libvirt has no call to read it. A failure is
		// only logged: a domain that ended has no limit any more, and the result of f must
		// not be lost.
		_ = timed(ctx, "virDomainAgentSetResponseTimeout", name, func() error {
			return dom.AgentSetResponseTimeout(int(libvirt.DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK), 0)
		})
		return name, err
	})
}

// noAgent reports whether the error means that no agent listens in the guest
// (qemuDomainAgentAvailable in libvirt's src/qemu/qemu_domain.c).
func noAgent(err error) bool {
	for _, code := range []libvirt.ErrorNumber{
		libvirt.ERR_AGENT_UNRESPONSIVE,    // not connected, or silent in the sync
		libvirt.ERR_AGENT_UNSYNCED,        // another caller's command is stuck in it
		libvirt.ERR_AGENT_COMMAND_TIMEOUT, // in sync, but silent
		libvirt.ERR_ARGUMENT_UNSUPPORTED,  // no channel
		libvirt.ERR_OPERATION_INVALID,     // the domain does not run
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}
