package hypervisor

import (
	"context"
	"fmt"

	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
)

// lifecycle suspends, resumes, starts, destroys and defines domains.
type lifecycle struct {
	*connections
	runDir
}

// Suspend pauses the domain's CPUs and drains and flushes its block layer (QEMU's
// do_vm_stop in softmmu/cpus.c). It leaves a domain alone that is already paused, for
// any reason. Errors: recover.ErrNoDomain; ErrState when the domain is neither running
// nor paused, or was paused meanwhile for another reason; recover.ErrUnavailable,
// after which the domain may be paused or become so.
func (l lifecycle) Suspend(ctx context.Context, uuid string) error {
	return l.apply(ctx, uuid, change{
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

// Resume lets a paused domain run. It succeeds if the domain runs already. Errors:
// recover.ErrNoDomain; ErrState when the domain is neither paused nor running;
// recover.ErrUnavailable, after which the domain may run.
func (l lifecycle) Resume(ctx context.Context, uuid string) error {
	return l.apply(ctx, uuid, change{
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

// Start boots a domain that is defined and not active. With paused the domain stops
// before its first instruction, and its pause has the reason user. Start succeeds if
// the domain is active already. If there is a managed save image, libvirt restores it
// instead of booting. Errors: recover.ErrNoDomain; recover.ErrUnavailable, after which
// the domain may be active; libvirt's own when QEMU can't start.
func (l lifecycle) Start(ctx context.Context, uuid string, paused bool) error {
	var flags libvirt.DomainCreateFlags
	if paused {
		flags = libvirt.DOMAIN_START_PAUSED
	}
	return l.apply(ctx, uuid, change{
		name: "starting", call: "virDomainCreateWithFlags",
		do: func(dom *libvirt.Domain) error { return dom.CreateWithFlags(flags) },
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, _ bool) (bool, error) {
			s, err := stateOf(ctx, dom, name)
			return s.active, err
		},
	})
}

// Destroy ends the domain's QEMU (SIGTERM, then SIGKILL) and waits until libvirt
// reports the domain as inactive. It succeeds if the domain is not active. Errors:
// recover.ErrNoDomain, also for a transient domain that libvirt has already forgotten;
// ErrState when somebody started the domain again meanwhile; recover.ErrUnavailable,
// after which QEMU may be gone or about to end.
func (l lifecycle) Destroy(ctx context.Context, uuid string) error {
	type life struct {
		id  uint
		pid int
	}
	var first *life
	return l.apply(ctx, uuid, change{
		name: "destroying", call: "virDomainDestroy", gone: true,
		do: func(dom *libvirt.Domain) error { return dom.Destroy() },
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, issued bool) (bool, error) {
			s, err := stateOf(ctx, dom, name)
			if err != nil || !s.active {
				return err == nil, err
			}
			id, err := dom.GetID() // from the look-up, makes no call
			if err != nil {
				return false, mapped("virDomainGetID", err)
			}
			now := life{id: id, pid: l.pid(name)}
			if first == nil {
				first = &now
			}
			if now.id != first.id || now.pid != first.pid && now.pid != 0 && first.pid != 0 {
				return false, fmt.Errorf("%w: its QEMU ended, and somebody started it again", ErrState)
			}
			return false, nil
		},
	})
}

// Define defines a domain by a document that XML returned. An inactive or unknown
// domain of that UUID gets this definition; a repetition changes nothing. Errors:
// libvirt's own, which quote no secret; recover.ErrUnavailable.
func (l lifecycle) Define(ctx context.Context, xml string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("defining a domain: %w", context.Cause(ctx))
	}
	// Once begun, it does not end with ctx.
	_, err := read(context.WithoutCancel(ctx), l.connections, func(conn *libvirt.Connect) (struct{}, error) {
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
