package hypervisor

import (
	"context"

	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
)

// state is a domain's state at one moment.
type state struct {
	state   recover.DomainState
	reason  recover.PauseReason
	crashed bool // it is off, and libvirt saw its QEMU end without a word
	active  bool // QEMU exists; a crashed domain may have one, a shut off one has none
}

// stateOf reads a domain's state.
func stateOf(ctx context.Context, dom *libvirt.Domain, name string) (state, error) {
	var code libvirt.DomainState
	var reason int
	err := timed(ctx, "virDomainGetState", name, func() (err error) {
		code, reason, err = dom.GetState()
		return err
	})
	if err != nil {
		return state{}, err
	}
	var active bool
	err = timed(ctx, "virDomainIsActive", name, func() (err error) {
		active, err = dom.IsActive()
		return err
	})
	s := state{state: domainState(code), active: active, crashed: hasCrashed(code, reason)}
	if code == libvirt.DOMAIN_PAUSED {
		s.reason = pauseReason(libvirt.DomainPausedReason(reason))
	}
	return s, err
}

func domainState(code libvirt.DomainState) recover.DomainState {
	switch code {
	case libvirt.DOMAIN_RUNNING:
		return recover.StateRunning
	case libvirt.DOMAIN_PAUSED:
		return recover.StatePaused
	case libvirt.DOMAIN_SHUTOFF:
		return recover.StateShutOff
	case libvirt.DOMAIN_CRASHED:
		return recover.StateCrashed
	case libvirt.DOMAIN_PMSUSPENDED:
		return recover.StatePMSuspended
	default:
		return recover.StateOther
	}
}

// hasCrashed is true for a domain that is off and whose QEMU closed its monitor without an
// event that says why (qemuProcessHandleMonitorEOF in libvirt's src/qemu/qemu_process.c): it
// was killed, or has aborted.
func hasCrashed(code libvirt.DomainState, reason int) bool {
	return code == libvirt.DOMAIN_SHUTOFF && libvirt.DomainShutoffReason(reason) == libvirt.DOMAIN_SHUTOFF_CRASHED
}

// pauseReason maps libvirt's reasons. A domain that was started paused has the reason
// user, and so has one whose `stop` was sent by a daemon that died before it recorded
// that (libvirt 9.0).
func pauseReason(reason libvirt.DomainPausedReason) recover.PauseReason {
	switch reason {
	case libvirt.DOMAIN_PAUSED_USER:
		return recover.PauseUser
	case libvirt.DOMAIN_PAUSED_IOERROR:
		return recover.PauseIOError
	case libvirt.DOMAIN_PAUSED_MIGRATION:
		return recover.PauseMigration
	case libvirt.DOMAIN_PAUSED_POSTCOPY, libvirt.DOMAIN_PAUSED_POSTCOPY_FAILED:
		return recover.PausePostcopy
	default:
		return recover.PauseOther
	}
}
