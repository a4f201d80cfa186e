package hypervisor

import (
	"errors"
	"fmt"

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

// unavailable is the error for a daemon that does not answer, with a hint.
func unavailable(uri string, err error) error {
	return fmt.Errorf("%w at %s: %w (is libvirtd or virtqemud running? try: virsh -c %s list)",
		recover.ErrUnavailable, uri, err, uri)
}
