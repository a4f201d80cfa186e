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
	// ErrNoMirror: no mirror of that disk is under way (any more): it was ended,
	// or failed, which leaves the guest on its source.
	ErrNoMirror = errors.New("no mirror of the disk is under way")
)

// Hypervisor is what package recover needs of libvirt. It must be safe for
// concurrent use. Every method honours the context between calls, but never
// gives up a state-changing call half way: when it returns, the change has
// happened or will not. A connection that broke is opened again and the call is
// repeated where that is harmless; otherwise the state is read and decides.
// Domains are named by UUID.
type Hypervisor interface {
	Mirrors
	DomainEvents

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

// Mirrors is the part of Hypervisor that mode live needs: a disk of a running
// domain is mirrored into another file, and the domain moved onto it.
type Mirrors interface {
	// MirrorSupport says what the host's hypervisor can do.
	MirrorSupport(ctx context.Context) (MirrorSupport, error)

	// Mirror begins to mirror a disk's top image into an empty file that exists
	// already and keeps its inode; the backing files stay those of the source.
	// After it returned the file may be renamed: QEMU has it open. The job lives
	// on in the hypervisor when this process ends.
	Mirror(ctx context.Context, uuid string, m MirrorRequest) error

	// MirrorState says how far a mirror is. ErrNoMirror when there is none.
	MirrorState(ctx context.Context, uuid, target string) (MirrorState, error)

	// Pivot moves the domain onto a mirror that is ready and ends the job: the
	// source is closed. When the answer is lost the state decides. ErrNoMirror
	// when there is no job, which may mean that it had pivoted before.
	Pivot(ctx context.Context, uuid, target string) error

	// EndMirror ends a mirror, and leaves the domain on its source. No mirror is
	// success, so is no domain. QEMU has closed the file when it returns.
	EndMirror(ctx context.Context, uuid, target string) error

	// Export shows disks of an active domain, as they are at this moment, over
	// NBD, each under its target's name, until EndExport: what the guest writes
	// later is not seen. Scratch files hold what it overwrites; they do not exist
	// yet. It returns the path of the Unix socket that QEMU listens at.
	Export(ctx context.Context, uuid string, disks []ExportDisk) (socket string, err error)

	// EndExport ends an export and has its scratch files removed. No export is
	// success, so is no domain.
	EndExport(ctx context.Context, uuid string) error
}

// DomainEvents is the part of Hypervisor that a guard needs beyond a look: when
// to look again.
type DomainEvents interface {
	// Events sends the UUID of a domain whenever it was defined, undefined, started
	// or stopped, suspended, resumed or moved, and "" when anything may have
	// happened to any: look at all of them. It does so after the connection was
	// made again, for which it tries without an end, and when the receiver is too
	// slow for each to be named. What happens to one domain faster than it is
	// received is sent once. The channel is closed soon after ctx has ended.
	//
	// ErrUnavailable when the hypervisor can't be reached at first.
	Events(ctx context.Context) (<-chan string, error)
}
