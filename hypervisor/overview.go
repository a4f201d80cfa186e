package hypervisor

import (
	"context"

	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
)

// known has the properties of a domain that are not in its XML.
type known struct {
	state
	persistent bool
	saved      bool // its memory was saved by virDomainManagedSave
}

// knownOf queries them for one domain.
func knownOf(ctx context.Context, dom *libvirt.Domain, name string) (known, error) {
	var k known
	var err error
	if k.state, err = stateOf(ctx, dom, name); err != nil {
		return known{}, err
	}
	err = timed(ctx, "virDomainIsPersistent", name, func() (err error) {
		k.persistent, err = dom.IsPersistent()
		return err
	})
	if err != nil {
		return known{}, err
	}
	err = timed(ctx, "virDomainHasManagedSaveImage", name, func() (err error) {
		k.saved, err = dom.HasManagedSaveImage(0)
		return err
	})
	return k, err
}

// overview has every domain of the host and their known properties by UUID. It takes
// a few calls for the host instead of several for each domain. A domain whose
// properties are incomplete is in the list only.
type overview struct {
	list  []libvirt.Domain
	known map[string]known
}

func overviewOf(ctx context.Context, conn *libvirt.Connect) (*overview, error) {
	o := &overview{known: map[string]known{}}
	var err error
	if o.list, err = listOf(ctx, conn, 0); err != nil {
		return nil, err
	}
	states, err := statesOf(ctx, conn)
	if err == nil {
		err = o.complete(ctx, conn, states)
	}
	if err != nil {
		o.free()
		return nil, err
	}
	return o, nil
}

// complete joins the states with the lists of persistent and of saved domains.
func (o *overview) complete(ctx context.Context, conn *libvirt.Connect, states map[string]state) error {
	persistent, err := uuidsOf(ctx, conn, libvirt.CONNECT_LIST_DOMAINS_PERSISTENT)
	if err != nil {
		return err
	}
	saved, err := uuidsOf(ctx, conn, libvirt.CONNECT_LIST_DOMAINS_MANAGEDSAVE)
	if err != nil {
		return err
	}
	for uuid, s := range states {
		o.known[uuid] = known{state: s, persistent: persistent[uuid], saved: saved[uuid]}
	}
	return nil
}

func (o *overview) free() {
	for n := range o.list {
		_ = o.list[n].Free()
	}
}

func listOf(ctx context.Context, conn *libvirt.Connect, flags libvirt.ConnectListAllDomainsFlags) ([]libvirt.Domain, error) {
	var list []libvirt.Domain
	err := timed(ctx, "virConnectListAllDomains", "", func() (err error) {
		list, err = conn.ListAllDomains(flags)
		return err
	})
	return list, err
}

// uuidsOf returns the UUIDs of the domains that match a flag.
func uuidsOf(ctx context.Context, conn *libvirt.Connect, flags libvirt.ConnectListAllDomainsFlags) (map[string]bool, error) {
	list, err := listOf(ctx, conn, flags)
	if err != nil {
		return nil, err
	}
	uuids := map[string]bool{}
	for n := range list {
		uuid, uerr := list[n].GetUUIDString() // local, no call
		if uerr != nil && err == nil {
			err = mapped("virDomainGetUUIDString", uerr)
		}
		uuids[uuid] = true
		_ = list[n].Free()
	}
	return uuids, err
}

// statesOf returns the states of all domains. The call does not ask a QEMU and does
// not wait for a job (qemuDomainGetStatsState in libvirt's src/qemu/qemu_driver.c).
func statesOf(ctx context.Context, conn *libvirt.Connect) (map[string]state, error) {
	var stats []libvirt.DomainStats
	err := timed(ctx, "virConnectGetAllDomainStats", "", func() (err error) {
		stats, err = conn.GetAllDomainStats(nil, libvirt.DOMAIN_STATS_STATE, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	states := map[string]state{}
	for _, s := range stats {
		uuid, uerr := s.Domain.GetUUIDString()
		_ = s.Domain.Free()
		if uerr != nil && err == nil {
			err = mapped("virDomainGetUUIDString", uerr)
		}
		if state, ok := stateOfStats(s.State); ok {
			states[uuid] = state
		}
	}
	return states, err
}

// stateOfStats reads a state. ok is false if it does not say whether there is a QEMU,
// like the state of a crashed domain.
func stateOfStats(s *libvirt.DomainStatsState) (state, bool) {
	if s == nil || !s.StateSet || !s.ReasonSet || s.State == libvirt.DOMAIN_CRASHED || s.State == libvirt.DOMAIN_NOSTATE {
		return state{}, false
	}
	known := state{state: domainState(s.State), active: s.State != libvirt.DOMAIN_SHUTOFF, crashed: hasCrashed(s.State, s.Reason)}
	if s.State == libvirt.DOMAIN_PAUSED {
		known.reason = pauseReason(libvirt.DomainPausedReason(s.Reason))
	}
	return known, true
}

// note writes the known properties into d.
func (k known) note(d *recover.Domain) {
	d.State, d.PauseReason, d.Persistent, d.Crashed = k.state.state, k.reason, k.persistent, k.crashed
	if k.saved {
		d.Losses = append(d.Losses, recover.LossSavedMemory)
	}
}
