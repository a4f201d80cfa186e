package hypervisor

import (
	"errors"
	"fmt"

	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
)

// Errors of this package, for errors.Is. recover.ErrNoDomain,
// recover.ErrUnavailable and recover.ErrNoAgent are returned as well.
var (
	// ErrClosed: the Client was used after Close.
	ErrClosed = errors.New("the hypervisor client is closed")
	// ErrState: the domain is in a state in which the call makes no sense.
	ErrState = errors.New("the domain's state does not allow it")
	// ErrNoStatistics: QEMU did not give the statistics of every disk.
	ErrNoStatistics = errors.New("QEMU gives no block statistics")
	// ErrXML: the domain's XML is not what this program can read.
	ErrXML = errors.New("unreadable domain XML")
)

// callError is a failed libvirt call, said for people: libvirt.Error prints
// its numbers.
type callError struct {
	call string
	err  error
}

func (e *callError) Error() string {
	var lv libvirt.Error
	if errors.As(e.err, &lv) && lv.Message != "" {
		return e.call + ": " + lv.Message
	}
	return e.call + ": " + e.err.Error()
}

func (e *callError) Unwrap() error { return e.err }

// mapped names a failed call and adds recover's sentinel where there is one.
func mapped(call string, err error) error {
	if err == nil {
		return nil
	}
	named := &callError{call: call, err: err}
	if errors.Is(err, libvirt.ERR_NO_DOMAIN) {
		return fmt.Errorf("%w: %w", recover.ErrNoDomain, named)
	}
	return named
}

// unavailable says that the daemon behind uri does not answer, and what to try.
func unavailable(uri string, err error) error {
	return fmt.Errorf("%w at %s: %w (is libvirtd or virtqemud running? try: virsh -c %s list)",
		recover.ErrUnavailable, uri, err, uri)
}
