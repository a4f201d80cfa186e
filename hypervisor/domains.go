package hypervisor

import (
	"context"
	"errors"
	"fmt"

	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
)

// reader reads what there is: versions, domains with their XML, and statistics.
type reader struct {
	*connections
	runDir
}

// Version is a line for people: "libvirt 9.0.0, QEMU 7.2.22". Both are what the
// daemon says: its own version, and that of the QEMU it would start.
func (r reader) Version(ctx context.Context) (string, error) {
	line, err := read(ctx, r.connections, func(conn *libvirt.Connect) (string, error) {
		lv, hv, err := versions(ctx, conn)
		return fmt.Sprintf("libvirt %s, QEMU %s", dotted(lv), dotted(hv)), err
	})
	if err != nil {
		return "", fmt.Errorf("asking for libvirt's version: %w", err)
	}
	return line, nil
}

// versions are the daemon's own and that of the QEMU it would start, as libvirt
// numbers them.
func versions(ctx context.Context, conn *libvirt.Connect) (lv, hv uint32, err error) {
	err = timed(ctx, "virConnectGetLibVersion", "", func() (err error) {
		lv, err = conn.GetLibVersion()
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	err = timed(ctx, "virConnectGetVersion", "", func() (err error) {
		hv, err = conn.GetVersion()
		return err
	})
	return lv, hv, err
}

// dotted decodes libvirt's version numbers: 9000000 is 9.0.0.
func dotted(v uint32) string {
	return fmt.Sprintf("%d.%d.%d", v/1_000_000, v/1_000%1_000, v%1_000)
}

// Domains returns every domain of the host, active or not. One that vanishes
// during the look is left out. One that can't be read fails the whole look: a
// scan that leaves a domain out would call its files nobody's.
func (r reader) Domains(ctx context.Context) ([]recover.Domain, error) {
	domains, err := read(ctx, r.connections, func(conn *libvirt.Connect) ([]recover.Domain, error) {
		o, err := overviewOf(ctx, conn)
		if err != nil {
			return nil, err
		}
		defer o.free()
		domains := make([]recover.Domain, 0, len(o.list))
		for i := range o.list {
			d, err := r.look(ctx, &o.list[i], o.known)
			if errors.Is(err, recover.ErrNoDomain) {
				continue
			}
			if err != nil {
				return nil, err
			}
			domains = append(domains, d)
		}
		return domains, nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the domains: %w", err)
	}
	return domains, nil
}

// Domain returns one domain, recover.ErrNoDomain when there is none.
func (r reader) Domain(ctx context.Context, uuid string) (recover.Domain, error) {
	d, err := read(ctx, r.connections, func(conn *libvirt.Connect) (recover.Domain, error) {
		dom, err := lookup(ctx, conn, uuid)
		if err != nil {
			return recover.Domain{}, err
		}
		defer func() { _ = dom.Free() }()
		return r.look(ctx, dom, nil)
	})
	if err != nil {
		return recover.Domain{}, fmt.Errorf("looking at domain %s: %w", uuid, err)
	}
	return d, nil
}

// XML returns the domain's persistent definition with its secrets, fit for
// Define; of a transient domain the live one, made inactive. It holds secrets
// (graphics passwords): the caller keeps it from logs. recover.ErrNoDomain when
// there is none.
func (r reader) XML(ctx context.Context, uuid string) (string, error) {
	doc, err := read(ctx, r.connections, func(conn *libvirt.Connect) (string, error) {
		dom, err := lookup(ctx, conn, uuid)
		if err != nil {
			return "", err
		}
		defer func() { _ = dom.Free() }()
		// Of a transient domain libvirt (9.0) formats the live definition without its
		// id under this flag. Aliases, indexes and labels of this life stay: a
		// definition drops them when it is read.
		return xmlOf(ctx, dom, uuid, libvirt.DOMAIN_XML_SECURE|libvirt.DOMAIN_XML_INACTIVE)
	})
	if err != nil {
		return "", fmt.Errorf("reading the definition of domain %s: %w", uuid, err)
	}
	return doc, nil
}

func xmlOf(ctx context.Context, dom *libvirt.Domain, name string, flags libvirt.DomainXMLFlags) (string, error) {
	var doc string
	err := timed(ctx, "virDomainGetXMLDesc", name, func() (err error) {
		doc, err = dom.GetXMLDesc(flags)
		return err
	})
	return doc, err
}

// nextOf reads what the persistent definition of an active domain names. Like the live
// XML it comes from the daemon's memory; no QEMU is asked, and no job is waited for
// (qemuDomainGetXMLDesc in libvirt's src/qemu/qemu_driver.c).
func nextOf(ctx context.Context, dom *libvirt.Domain, name string) (*recover.Definition, error) {
	doc, err := xmlOf(ctx, dom, name, libvirt.DOMAIN_XML_INACTIVE)
	if err != nil {
		return nil, err
	}
	return definitionOf(doc)
}

// definitionOf reads what a domain's XML names.
func definitionOf(doc string) (*recover.Definition, error) {
	d, _, err := parseDomain(doc)
	if err != nil {
		return nil, err
	}
	return &recover.Definition{Disks: d.Disks, NVRAM: d.NVRAM, Boot: d.Boot}, nil
}

// savedOf reads what the managed save image of a domain names, with which libvirt starts it. unread
// is why an image can't be read: what a start would open is not known then.
func savedOf(ctx context.Context, dom *libvirt.Domain, name string) (saved *recover.Definition, unread string, err error) {
	var doc string
	err = timed(ctx, "virDomainManagedSaveGetXMLDesc", name, func() (err error) {
		doc, err = dom.ManagedSaveGetXMLDesc(0)
		return err
	})
	if errors.Is(err, recover.ErrNoDomain) || errors.Is(err, recover.ErrUnavailable) || ctx.Err() != nil {
		return nil, "", err
	}
	if err == nil {
		saved, err = definitionOf(doc)
	}
	if err != nil {
		return nil, err.Error(), nil //nolint:nilerr // that it can't be read is what there is to know
	}
	return saved, "", nil
}

// look reads all there is to know of one domain. It asks for nothing
// that is known by UUID already. XML and state are two calls: both are read again when the
// domain started or ended between them.
func (r reader) look(ctx context.Context, dom *libvirt.Domain, before map[string]known) (recover.Domain, error) {
	name, err := dom.GetName() // these two are local, no call
	if err != nil {
		return recover.Domain{}, mapped("virDomainGetName", err)
	}
	uuid, err := dom.GetUUIDString()
	if err != nil {
		return recover.Domain{}, mapped("virDomainGetUUIDString", err)
	}
	fail := func(err error) (recover.Domain, error) {
		return recover.Domain{}, fmt.Errorf("looking at %s: %w", subject(uuid, name), err)
	}
	const tries = 5
	for try := range tries {
		doc, err := xmlOf(ctx, dom, name, 0)
		if err != nil {
			return fail(err)
		}
		d, live, err := parseDomain(doc)
		if err != nil {
			return fail(err)
		}
		k, ok := before[uuid]
		if !ok || try > 0 {
			if k, err = knownOf(ctx, dom, name); err != nil {
				return fail(err)
			}
		}
		if k.active != live {
			continue
		}
		k.note(&d)
		if !live {
			if k.saved {
				d.Saved, d.SavedUnread, err = savedOf(ctx, dom, name)
			}
			if err != nil {
				return fail(err)
			}
			return d, nil
		}
		d.PID = r.pid(d.Name)
		if d.Persistent {
			if d.Next, err = nextOf(ctx, dom, name); err != nil {
				return fail(err)
			}
		}
		err = jobs(ctx, dom, &d)
		if errors.Is(err, libvirt.ERR_OPERATION_INVALID) {
			continue // it ended meanwhile
		}
		if err != nil {
			return fail(err)
		}
		return d, nil
	}
	return fail(fmt.Errorf("%w: it starts and stops faster than it can be read", ErrState))
}
