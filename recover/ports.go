package recover

import (
	"context"
	"errors"
	"time"
)

// Errors that an implementation of Hypervisor returns, for errors.Is.
var (
	// ErrNoDomain: the hypervisor knows no domain of that UUID.
	ErrNoDomain = errors.New("no such domain")
	// ErrUnavailable: the hypervisor can't be reached, and trying again did not help.
	ErrUnavailable = errors.New("the hypervisor does not answer")
	// ErrNoAgent: the guest has no agent channel, or its agent does not answer.
	ErrNoAgent = errors.New("no guest agent answers")
)

// Hypervisor is what package recover needs of libvirt. It must be safe for
// concurrent use. Every method honours the context between calls, but never
// gives up a state-changing call half way: when it returns, the change has
// happened or will not. A connection that broke is opened again and the call is
// repeated where that is harmless; otherwise the state is read and decides.
// Domains are named by UUID.
type Hypervisor interface {
	// Version is a line for people: "libvirt 9.0.0, QEMU 7.2.22".
	Version(ctx context.Context) (string, error)

	// Domains returns every domain of the host, active or not, in no order.
	// A domain that vanishes during the look is left out.
	Domains(ctx context.Context) ([]Domain, error)

	// Domain returns one domain. ErrNoDomain when there is none.
	Domain(ctx context.Context, uuid string) (Domain, error)

	// XML returns the domain's persistent definition, secrets included, fit for
	// Define: what a later start needs when libvirt has forgotten the domain.
	// For a domain without one it is the live definition, made inactive.
	XML(ctx context.Context, uuid string) (string, error)

	// Counters returns the write statistics of every disk of an active domain,
	// by target. It works on a paused domain too.
	Counters(ctx context.Context, uuid string) (map[string]BlockCounters, error)

	// Suspend pauses the domain's CPUs and drains and flushes its block layer.
	// It does nothing to a domain that is paused already: the caller looks first.
	Suspend(ctx context.Context, uuid string) error

	// Resume lets a paused domain run. Running already is success.
	Resume(ctx context.Context, uuid string) error

	// Freeze asks the guest's agent to freeze every file system, and waits at
	// most limit. ErrNoAgent when no agent answers. After any other error the
	// guest may be frozen, or become so: the caller thaws.
	Freeze(ctx context.Context, uuid string, limit time.Duration) error

	// Thaw undoes Freeze, waiting at most limit. Nothing frozen is success.
	Thaw(ctx context.Context, uuid string, limit time.Duration) error

	// Destroy ends the domain's QEMU, as `virsh destroy` does. A domain that is
	// not active is success. The definition of a persistent domain stays.
	Destroy(ctx context.Context, uuid string) error

	// Define makes the domain known again from what XML returned.
	Define(ctx context.Context, xml string) error

	// Start boots a domain that is defined and not active, paused before its
	// first instruction if asked. Active already is success.
	Start(ctx context.Context, uuid string, paused bool) error
}
