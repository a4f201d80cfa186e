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
	// ErrState: the domain's state does not allow the call.
	ErrState = errors.New("the domain's state does not allow it")
	// ErrNoStatistics: QEMU did not return the statistics of every disk.
	ErrNoStatistics = errors.New("QEMU gives no block statistics")
	// ErrXML: this program can't read the domain's XML.
	ErrXML = errors.New("unreadable domain XML")
)

// callError is a failed libvirt call with libvirt's message: libvirt.Error prints its
// numbers.
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

// mapped adds the name of the call to an error, and recover's sentinel where there is
// one.
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

// unavailable is the error for a daemon that does not answer, with a hint.
func unavailable(uri string, err error) error {
	return fmt.Errorf("%w at %s: %w (is libvirtd or virtqemud running? try: virsh -c %s list)",
		recover.ErrUnavailable, uri, err, uri)
}
