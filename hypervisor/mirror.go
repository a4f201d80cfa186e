package hypervisor

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/os-rescue/os-rescue/recover"
)

// Versions, as libvirt numbers them (major×10⁶ + minor×10³ + release).
const (
	// A mirror's target is a node of its own, whose file may be renamed, since
	// libvirt drives QEMU 4.2 by -blockdev (libvirt's NEWS of 5.10 and 6.0).
	mirrorLibvirt, mirrorQEMU = 6_000_000, 4_002_000
	// VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES (libvirt's NEWS of 8.0).
	synchronousLibvirt = 8_000_000
	// Backups in pull mode are on by default since libvirt 7.2 with QEMU 5.2
	// (libvirt's NEWS of 7.2, QEMU_CAPS_INCREMENTAL_BACKUP).
	exportLibvirt, exportQEMU = 7_002_000, 5_002_000
)

// MirrorSupport says what libvirt's daemon and the QEMU that it would start can
// do, by their versions. A guest's own QEMU may be older, and a call may fail all
// the same.
func (c *Client) MirrorSupport(ctx context.Context) (recover.MirrorSupport, error) {
	support, err := read(ctx, c, func(conn *libvirt.Connect) (recover.MirrorSupport, error) {
		var lv, hv uint32
		err := timed(ctx, "virConnectGetLibVersion", "", func() (err error) {
			lv, err = conn.GetLibVersion()
			return err
		})
		if err != nil {
			return recover.MirrorSupport{}, err
		}
		err = timed(ctx, "virConnectGetVersion", "", func() (err error) {
			hv, err = conn.GetVersion()
			return err
		})
		return mirrorSupport(lv, hv), err
	})
	if err != nil {
		return support, fmt.Errorf("asking for libvirt's version: %w", err)
	}
	return support, nil
}

func mirrorSupport(lv, hv uint32) recover.MirrorSupport {
	if lv < mirrorLibvirt || hv < mirrorQEMU {
		return recover.MirrorSupport{Missing: fmt.Sprintf("libvirt %s with QEMU %s can't mirror a disk onto a file that is renamed meanwhile: that takes libvirt %s and QEMU %s",
			dotted(lv), dotted(hv), dotted(mirrorLibvirt), dotted(mirrorQEMU))}
	}
	return recover.MirrorSupport{Synchronous: lv >= synchronousLibvirt, Export: lv >= exportLibvirt && hv >= exportQEMU}
}

// mirrorOf returns the block job that mirrors a disk of a live domain, and whether
// there is one: a copy, and for Pivot and EndMirror nothing else. ErrState when it
// is another kind of job.
func mirrorOf(ctx context.Context, dom *libvirt.Domain, name, target string) (*libvirtxml.DomainDiskMirror, error) {
	doc, err := xmlOf(ctx, dom, name, 0)
	if err != nil {
		return nil, err
	}
	if err := bounded(doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrXML, err)
	}
	var def libvirtxml.Domain
	if err := def.Unmarshal(doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrXML, err)
	}
	if def.Devices == nil {
		return nil, nil
	}
	for i := range def.Devices.Disks {
		disk := &def.Devices.Disks[i]
		if disk.Target == nil || disk.Target.Dev != target || disk.Mirror == nil {
			continue
		}
		if job := disk.Mirror.Job; job != "copy" && job != "" {
			return nil, fmt.Errorf("%w: disk %s has another block job (%s)", ErrState, target, job)
		}
		return disk.Mirror, nil
	}
	return nil, nil
}

// mirrorXML is the destination of a mirror. Cache mode, discard and the like are
// the disk's own: libvirt takes them from its front end, for both sides
// (qemuDomainPrepareStorageSourceBlockdev in src/qemu/qemu_domain.c).
func mirrorXML(m recover.MirrorRequest) (string, error) {
	doc, err := xml.Marshal(&libvirtxml.DomainDisk{
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: m.Format},
		Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: m.Path}},
	})
	return string(doc), err
}

// Mirror begins a shallow, transient block copy (virDomainBlockCopy). libvirt takes
// an empty file that exists, formats it with the source's size, cluster size and
// backing file, and gives it to QEMU's user; measured with 9.0. Only the chain
// above the deleted source is looked at, the backing files stay open as they are.
// Errors: recover.ErrNoDomain; ErrState when the disk has a block job already;
// recover.ErrUnavailable, after which the mirror may be under way; libvirt's own.
func (c *Client) Mirror(ctx context.Context, uuid string, m recover.MirrorRequest) error {
	doc, err := mirrorXML(m)
	if err != nil {
		return err
	}
	flags := libvirt.DOMAIN_BLOCK_COPY_SHALLOW | libvirt.DOMAIN_BLOCK_COPY_TRANSIENT_JOB
	if m.Synchronous {
		flags |= libvirt.DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES
	}
	params := &libvirt.DomainBlockCopyParameters{BandwidthSet: m.BytesPerSecond > 0, Bandwidth: m.BytesPerSecond}
	return c.apply(ctx, uuid, change{
		name: "mirroring disk " + m.Target + " of", call: "virDomainBlockCopy",
		do: func(dom *libvirt.Domain) error { return dom.BlockCopy(m.Target, doc, params, flags) },
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, issued bool) (bool, error) {
			mirror, err := mirrorOf(ctx, dom, name, m.Target)
			switch {
			case err != nil || mirror == nil:
				return false, err
			case issued && mirror.Source != nil && mirror.Source.File != nil && mirror.Source.File.File == m.Path:
				return true, nil
			}
			return false, fmt.Errorf("%w: disk %s has a mirror already", ErrState, m.Target)
		},
	})
}

// MirrorState says how far a mirror is, by its block job
// (virDomainGetBlockJobInfo) and by ready='yes' in the live XML, which libvirt sets
// at QEMU's event (https://libvirt.org/formatdomain.html, mirror). libvirt finds
// its jobs again when its daemon is restarted. Errors: recover.ErrNoMirror;
// recover.ErrNoDomain; ErrState when it is another kind of job.
func (c *Client) MirrorState(ctx context.Context, uuid, target string) (recover.MirrorState, error) {
	state, err := read(ctx, c, func(conn *libvirt.Connect) (recover.MirrorState, error) {
		dom, err := lookup(ctx, conn, uuid)
		if err != nil {
			return recover.MirrorState{}, err
		}
		defer func() { _ = dom.Free() }()
		mirror, err := mirrorOf(ctx, dom, uuid, target)
		if err != nil {
			return recover.MirrorState{}, err
		}
		if mirror == nil {
			return recover.MirrorState{}, recover.ErrNoMirror
		}
		var info *libvirt.DomainBlockJobInfo
		err = timed(ctx, "virDomainGetBlockJobInfo", uuid, func() (err error) {
			info, err = dom.GetBlockJobInfo(target, 0)
			return err
		})
		if err != nil {
			return recover.MirrorState{}, err
		}
		if info.Type == libvirt.DOMAIN_BLOCK_JOB_TYPE_UNKNOWN {
			return recover.MirrorState{}, recover.ErrNoMirror
		}
		return recover.MirrorState{Copied: int64(info.Cur), Total: int64(info.End), Ready: mirror.Ready == "yes"}, nil
	})
	if err != nil {
		return state, fmt.Errorf("looking at the mirror of disk %s of domain %s: %w", target, uuid, err)
	}
	return state, nil
}

// Pivot moves the domain onto a mirror (virDomainBlockJobAbort with PIVOT, which
// returns when QEMU has closed the source). Errors: recover.ErrNoMirror when there
// was none before; recover.ErrNoDomain; recover.ErrUnavailable, after which it may
// have happened; libvirt's own when QEMU fails, and the mirror may have ended then.
func (c *Client) Pivot(ctx context.Context, uuid, target string) error {
	var failed error
	return c.apply(ctx, uuid, change{
		name: "moving onto the mirror of disk " + target + " of", call: "virDomainBlockJobAbort",
		do: func(dom *libvirt.Domain) error {
			failed = dom.BlockJobAbort(target, libvirt.DOMAIN_BLOCK_JOB_ABORT_PIVOT)
			return failed
		},
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, issued bool) (bool, error) {
			mirror, err := mirrorOf(ctx, dom, name, target)
			switch {
			case err != nil || mirror != nil:
				return false, err
			case !issued:
				return false, recover.ErrNoMirror
			case errors.Is(failed, libvirt.ERR_OPERATION_FAILED):
				return false, failed // it ended, and not as it was asked to
			}
			return true, nil
		},
	})
}

// EndMirror ends a mirror (virDomainBlockJobAbort, which returns when QEMU has
// closed the target). No mirror, a domain that is off, and no domain are success.
// Errors: ErrState when the disk has another kind of job; recover.ErrUnavailable.
func (c *Client) EndMirror(ctx context.Context, uuid, target string) error {
	err := c.apply(ctx, uuid, change{
		name: "ending the mirror of disk " + target + " of", call: "virDomainBlockJobAbort",
		do: func(dom *libvirt.Domain) error { return dom.BlockJobAbort(target, 0) },
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, _ bool) (bool, error) {
			mirror, err := mirrorOf(ctx, dom, name, target)
			return mirror == nil && err == nil, err
		},
	})
	if errors.Is(err, recover.ErrNoDomain) {
		return nil
	}
	return err
}
