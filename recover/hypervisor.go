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
	// ErrNoMirror: no mirror of that disk is under way (any more). It was ended or has
	// failed; in both cases the guest stays on its source.
	ErrNoMirror = errors.New("no mirror of the disk is under way")
)

// Hypervisor is what os-rescue needs of libvirt. It must be safe for concurrent
// use. Domains are named by UUID.
//
// Every method honours the context between its calls to the hypervisor, but never
// abandons a call that changes state: when the method returns, the change has happened
// or will not happen. After a broken connection it connects again. It repeats the call
// if that is harmless; otherwise it reads the state to find out what happened.
type Hypervisor interface {
	Mirrors
	DomainEvents

	// Version returns a line for people: "libvirt 9.0.0, QEMU 7.2.22".
	Version(ctx context.Context) (string, error)

	// Domains returns every domain of the host, active or not, in no particular order.
	// It leaves out a domain that vanishes meanwhile.
	Domains(ctx context.Context) ([]Domain, error)

	// Domain returns one domain. ErrNoDomain when there is none.
	Domain(ctx context.Context, uuid string) (Domain, error)

	// XML returns the domain's persistent definition, including secrets, in a form that
	// Define accepts: a later start needs it if libvirt no longer knows the domain. For
	// a transient domain it is the live definition, made inactive. ErrNoDomain.
	XML(ctx context.Context, uuid string) (string, error)

	// StartNeeds returns what a start of the domain's persistent definition needs beside
	// its disks, and what of it the host lacks. Whether the files exist is not looked at.
	// ErrNoDomain.
	StartNeeds(ctx context.Context, uuid string) (StartNeeds, error)

	// Counters returns the write statistics of every disk of an active domain, by
	// target. The domain may be paused.
	Counters(ctx context.Context, uuid string) (map[string]BlockCounters, error)

	// Suspend pauses the domain's CPUs, and drains and flushes its block layer. It does
	// nothing to a domain that is already paused: the caller must look first.
	Suspend(ctx context.Context, uuid string) error

	// Resume lets a paused domain run. If it already runs, that is success.
	Resume(ctx context.Context, uuid string) error

	// Freeze asks the guest's agent to freeze every file system, and waits at most
	// limit. ErrNoAgent when no agent answers. After any other error the guest may be
	// frozen or may still become so: the caller must thaw it.
	Freeze(ctx context.Context, uuid string, limit time.Duration) error

	// Thaw undoes Freeze, and waits at most limit. If nothing is frozen, that is success.
	Thaw(ctx context.Context, uuid string, limit time.Duration) error

	// Destroy ends the domain's QEMU, as `virsh destroy` does. If the domain is not
	// active, that is success. A persistent domain keeps its definition.
	Destroy(ctx context.Context, uuid string) error

	// Define makes the domain known again. xml is a result of XML. Of a domain that is
	// known it becomes the persistent definition; an active one goes on as it is.
	Define(ctx context.Context, xml string) error

	// Start boots a domain that is defined and not active; if paused is true, it stops
	// before its first instruction. If the domain is already active, that is success.
	Start(ctx context.Context, uuid string, paused bool) error
}

// Mirrors is the part of Hypervisor that mode live needs. It mirrors a disk of a running
// domain into another file and moves the domain onto that file. Targets are those of
// Disk.Target.
type Mirrors interface {
	// MirrorSupport returns what this host's hypervisor can do.
	MirrorSupport(ctx context.Context) (MirrorSupport, error)

	// Mirror begins to mirror a disk's top image into an existing empty file, which keeps
	// its inode. The backing files stay those of the source. Once Mirror has returned,
	// QEMU has the file open, and it may be renamed; Pivot needs it at this path again.
	// The job goes on in the hypervisor when this process ends.
	Mirror(ctx context.Context, uuid string, m MirrorRequest) error

	// MirrorState returns the progress of a mirror. ErrNoMirror when there is none.
	MirrorState(ctx context.Context, uuid, target string) (MirrorState, error)

	// Pivot moves the domain onto a mirror that is ready, closes the source, and ends
	// the job. If the hypervisor's answer is lost, the state of the domain decides.
	// ErrNoMirror when there is no job; the domain may have pivoted before.
	Pivot(ctx context.Context, uuid, target string) error

	// EndMirror ends a mirror and leaves the domain on its source. When it returns, QEMU
	// has closed the mirror's file. If there is no mirror or no domain, that is success.
	EndMirror(ctx context.Context, uuid, target string) error

	// Export exports disks of an active domain over NBD, each under its target's name,
	// until EndExport. They show their content at the moment of the call, without later
	// writes of the guest: the scratch files, which must not exist yet, keep what the
	// guest overwrites. It returns the path of the Unix socket on which QEMU listens.
	Export(ctx context.Context, uuid string, disks []ExportDisk) (socket string, err error)

	// EndExport ends an export and removes its scratch files. If there is no export or no
	// domain, that is success.
	EndExport(ctx context.Context, uuid string) error
}

// DomainEvents is the part of Hypervisor that tells the guard when to look at domains.
type DomainEvents interface {
	// Events sends the UUID of a domain each time that it is defined, undefined, started,
	// stopped, suspended, resumed or moved. It sends "" when any domain may have changed,
	// so that the receiver must look at all of them: after it has connected again, which
	// it tries without end, and when the receiver is too slow for single names. Several
	// changes of one domain may be sent as one. The channel is closed soon after ctx has
	// ended.
	//
	// ErrUnavailable when the first connection fails.
	Events(ctx context.Context) (<-chan string, error)
}
