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
	// Since libvirt drives QEMU 4.2 by -blockdev, a mirror's target is a node of its
	// own, whose file may be renamed (libvirt's NEWS of 5.10 and 6.0).
	mirrorLibvirt, mirrorQEMU = 6_000_000, 4_002_000
	// VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES (libvirt's NEWS of 8.0).
	synchronousLibvirt = 8_000_000
	// Since libvirt 7.2 a full backup, without a checkpoint, works without being
	// enabled (its NEWS of 7.2; incremental ones came with 7.6). It needs only QEMU's
	// blockdev-backup job; 5.2 is the oldest QEMU of that time.
	exportLibvirt, exportQEMU = 7_002_000, 5_002_000
)

// mirrors copy disks onto new files while their guests run.
type mirrors struct {
	*connections
}

// MirrorSupport returns the abilities of libvirt's daemon and of the QEMU that it
// would start, by their versions. A guest's own QEMU may be older, so a call may still
// fail.
func (m mirrors) MirrorSupport(ctx context.Context) (recover.MirrorSupport, error) {
	support, err := read(ctx, m.connections, func(conn *libvirt.Connect) (recover.MirrorSupport, error) {
		lv, hv, err := versions(ctx, conn)
		return mirrorSupport(lv, hv), err
	})
	if err != nil {
		return support, fmt.Errorf("asking for libvirt's version: %w", err)
	}
	return support, nil
}

func mirrorSupport(lv, hv uint32) recover.MirrorSupport {
	if lv < mirrorLibvirt || hv < mirrorQEMU {
		missing := fmt.Sprintf("libvirt %s with QEMU %s can't mirror a disk onto a file that is renamed meanwhile: "+
			"that takes libvirt %s and QEMU %s", dotted(lv), dotted(hv), dotted(mirrorLibvirt), dotted(mirrorQEMU))
		return recover.MirrorSupport{Missing: missing}
	}
	return recover.MirrorSupport{
		Synchronous: lv >= synchronousLibvirt,
		Export:      lv >= exportLibvirt && hv >= exportQEMU,
	}
}

// liveDisk returns a disk from the domain's current XML, nil when there is none, and
// the domain's id: a new one for each start, -1 when it is not active.
func liveDisk(ctx context.Context, dom *libvirt.Domain, name, target string) (id int, disk *libvirtxml.DomainDisk, err error) {
	const off = -1
	doc, err := xmlOf(ctx, dom, name, 0)
	if err != nil {
		return off, nil, err
	}
	def, err := definition(doc)
	if err != nil {
		return off, nil, err
	}
	id = off
	if def.ID != nil {
		id = *def.ID
	}
	if def.Devices == nil {
		return id, nil, nil
	}
	for i := range def.Devices.Disks {
		disk := &def.Devices.Disks[i]
		if disk.Target != nil && disk.Target.Dev == target {
			return id, disk, nil
		}
	}
	return id, nil, nil
}

// copying returns the block job that mirrors a disk, nil when there is none. ErrState
// when the disk has another kind of job.
func copying(disk *libvirtxml.DomainDisk) (*libvirtxml.DomainDiskMirror, error) {
	if disk == nil || disk.Mirror == nil {
		return nil, nil
	}
	if job := disk.Mirror.Job; job != "copy" && job != "" {
		return nil, fmt.Errorf("%w: disk %s has another block job (%s)", ErrState, disk.Target.Dev, job)
	}
	return disk.Mirror, nil
}

// mirrorOf is copying for a disk of a domain, given by its target.
func mirrorOf(ctx context.Context, dom *libvirt.Domain, name, target string) (*libvirtxml.DomainDiskMirror, error) {
	_, disk, err := liveDisk(ctx, dom, name, target)
	if err != nil {
		return nil, err
	}
	return copying(disk)
}

// mirrorXML is the destination of a mirror. libvirt takes cache mode, discard and the
// like from the disk's front end, for both sides
// (qemuDomainPrepareStorageSourceBlockdev in its src/qemu/qemu_domain.c).
func mirrorXML(m recover.MirrorRequest) (string, error) {
	doc, err := xml.Marshal(&libvirtxml.DomainDisk{
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: m.Format},
		Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: m.Path}},
	})
	return string(doc), err
}

// Mirror begins a shallow, transient block copy (virDomainBlockCopy). libvirt formats
// an existing empty file with the source's size, cluster size and backing file, and
// makes QEMU's user its owner. Neither the source nor its backing files need to have
// a name on disk, because QEMU has them open. A paused domain is mirrored too.
// Measured with libvirt 9.0. Errors: recover.ErrNoDomain; ErrState when the domain is
// not active or the disk already has a block job; recover.ErrUnavailable, after which
// the mirror may have begun; libvirt's own, also when the file is no longer empty
// because a daemon died between formatting and mirroring.
func (m mirrors) Mirror(ctx context.Context, uuid string, r recover.MirrorRequest) error {
	doc, err := mirrorXML(r)
	if err != nil {
		return err
	}
	flags := libvirt.DOMAIN_BLOCK_COPY_SHALLOW | libvirt.DOMAIN_BLOCK_COPY_TRANSIENT_JOB
	if r.Synchronous {
		flags |= libvirt.DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES
	}
	params := &libvirt.DomainBlockCopyParameters{BandwidthSet: r.BytesPerSecond > 0, Bandwidth: r.BytesPerSecond}
	return m.apply(ctx, uuid, change{
		name: "mirroring disk " + r.Target + " of", call: "virDomainBlockCopy",
		do: func(dom *libvirt.Domain) error { return dom.BlockCopy(r.Target, doc, params, flags) },
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, issued bool) (bool, error) {
			mirror, err := mirrorOf(ctx, dom, name, r.Target)
			switch {
			case err != nil:
				return false, err
			case mirror == nil && issued:
				return false, nil
			case mirror == nil:
				return false, idle(ctx, dom, name, r.Target)
			case issued && mirror.Source != nil && mirror.Source.File != nil && mirror.Source.File.File == r.Path:
				return true, nil
			}
			return false, fmt.Errorf("%w: disk %s has a mirror already", ErrState, r.Target)
		},
	})
}

// idle is ErrState when a domain is not active, or when its disk has a block job, even
// one that the XML does not show (pull, commit, backup).
func idle(ctx context.Context, dom *libvirt.Domain, name, target string) error {
	s, err := stateOf(ctx, dom, name)
	if err != nil {
		return err
	}
	if !s.active {
		return fmt.Errorf("%w: it is %s", ErrState, s.state)
	}
	job, err := blockJobOf(ctx, dom, name, target)
	if err != nil {
		return err
	}
	if kind := blockJobName(job.Type); kind != "" {
		return fmt.Errorf("%w: disk %s has another block job (%s)", ErrState, target, kind)
	}
	return nil
}

// MirrorState returns the progress of a mirror, from its block job
// (virDomainGetBlockJobInfo) and from ready='yes' in the live XML, which libvirt sets
// at QEMU's event (https://libvirt.org/formatdomain.html, mirror). A restarted
// daemon finds its jobs again. Errors: recover.ErrNoMirror; recover.ErrNoDomain;
// ErrState when the disk has another kind of job.
func (m mirrors) MirrorState(ctx context.Context, uuid, target string) (recover.MirrorState, error) {
	state, err := read(ctx, m.connections, func(conn *libvirt.Connect) (recover.MirrorState, error) {
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
		info, err := blockJobOf(ctx, dom, uuid, target)
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
// returns when QEMU has closed the source). If the answer is lost or the call fails,
// the missing mirror does not show whether the domain moved, because the mirror may
// have failed, and both files may have the same path. Pivot therefore compares the
// index of the disk's source, a distinct number that libvirt gives every image that it
// opens for a running domain (https://libvirt.org/formatdomain.html, source; measured
// with 9.0, also over a restart of the daemon). The mirror's file must have the path
// that Mirror was given: else the job fails and ends (measured with QEMU 7.2).
// Errors: recover.ErrNoMirror when there was none, or when it ended and the domain did
// not move; recover.ErrNoDomain; recover.ErrUnavailable, after which the domain may
// have moved; libvirt's own while the mirror goes on, for example when it is not ready.
func (m mirrors) Pivot(ctx context.Context, uuid, target string) error {
	var life int    // the domain's id before the call
	var source uint // the index of the disk's source before it
	return m.apply(ctx, uuid, change{
		name: "moving onto the mirror of disk " + target + " of", call: "virDomainBlockJobAbort",
		do: func(dom *libvirt.Domain) error {
			return dom.BlockJobAbort(target, libvirt.DOMAIN_BLOCK_JOB_ABORT_PIVOT)
		},
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, issued bool) (bool, error) {
			id, disk, err := liveDisk(ctx, dom, name, target)
			if err != nil {
				return false, err
			}
			mirror, err := copying(disk)
			if err != nil {
				return false, err
			}
			var index uint
			if disk != nil && disk.Source != nil {
				index = disk.Source.Index
			}
			switch {
			case mirror != nil:
				if !issued {
					life, source = id, index
				}
				return false, nil
			case issued && id == life && index != 0 && source != 0 && index != source:
				return true, nil
			}
			return false, recover.ErrNoMirror
		},
	})
}

// EndMirror ends a mirror (virDomainBlockJobAbort, which returns when QEMU has closed
// the target). It succeeds if there is no mirror, if the domain is off, and if there
// is no domain. Errors: ErrState when the disk has another kind of job;
// recover.ErrUnavailable.
func (m mirrors) EndMirror(ctx context.Context, uuid, target string) error {
	err := m.apply(ctx, uuid, change{
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
