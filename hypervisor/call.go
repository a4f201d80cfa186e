package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
)

// timed runs one libvirt call and logs its begin at level trace and its end at level
// debug. domain is a name or UUID, empty when the call is about the host.
func timed(ctx context.Context, call, domain string, f func() error) error {
	log := zerolog.Ctx(ctx)
	log.Trace().Str("call", call).Str("domain", domain).Msg("libvirt call begins")
	start := time.Now()
	err := f()
	log.Debug().Str("call", call).Str("domain", domain).Dur("took", time.Since(start)).Err(err).Msg("libvirt call")
	return mapped(call, err)
}

// lookup finds a domain by its UUID; the caller frees it.
func lookup(ctx context.Context, conn *libvirt.Connect, uuid string) (*libvirt.Domain, error) {
	var dom *libvirt.Domain
	err := timed(ctx, "virDomainLookupByUUIDString", uuid, func() (err error) {
		dom, err = conn.LookupDomainByUUIDString(uuid)
		return err
	})
	return dom, err
}

// subject names a domain in a message.
func subject(uuid, name string) string {
	if name == "" {
		return "domain " + uuid
	}
	return fmt.Sprintf("domain %s (%s)", name, uuid)
}

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
