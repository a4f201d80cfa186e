package oracle

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/lab"
)

// disk is one disk of a guest, and what the guest must read from it.
type disk struct {
	target   string // vda
	path     string // of the file on top, as it was defined or attached
	nova     string // the path that Nova defines; empty for a disk that it knows nothing of
	format   string
	base     string // path of its backing file; empty when it has none
	readonly bool
	content  content
	// tops are the files of its chain that QEMU has had open since its start and that no
	// other disk has: the one on top first. They are what becomes unreachable.
	tops []identity
	past []identity // all that were on top until now
}

// guest is an instance without an operating system.
type guest struct {
	name, uuid, dir string
	xml             string // as Nova defines it
	domain          *libvirt.Domain
	pid             int // of its QEMU, when last looked; 0 when it is off
	disks           []*disk
}

// layout says what disks a guest has.
type layout struct {
	Top    string // "qcow2" over a base, or "raw"
	Eph    bool   // disk.eph0, raw
	Config bool   // disk.config, a read-only cdrom
}

func (l layout) String() string {
	s := l.Top
	if l.Eph {
		s += "+eph0"
	}
	if l.Config {
		s += "+config"
	}
	return s
}

// baseContent is what every base of the host holds.
func baseContent() content {
	var c content
	for n := range chunks / 2 { // the rest of an overlay is beyond its base's end
		c[n] = byte(0xa0 + n)
	}
	return c
}

func basePath() string {
	sum := sha1.Sum([]byte("oracle"))
	return filepath.Join(lab.BaseDir, hex.EncodeToString(sum[:]))
}

// makeBase makes the base that all overlays share, unless it is there.
func makeBase() error {
	path := basePath()
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(lab.BaseDir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, baseContent().bytes(chunks/2), 0o644); err != nil {
		return err
	}
	return bare.Chown(lab.BaseDir, path)
}

// newGuest makes the files of a guest and defines its domain.
func newGuest(ctx context.Context, connection *libvirt.Connect, number int, l layout) (*guest, error) {
	uuid := fmt.Sprintf("%08d-0000-4000-8000-000000000000", number)
	g := &guest{name: fmt.Sprintf("instance-%08x", number), uuid: uuid, dir: filepath.Join(lab.InstancesDir, uuid)}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return nil, err
	}
	if err := makeBase(); err != nil {
		return nil, err
	}
	top := &disk{target: "vda", path: filepath.Join(g.dir, "disk"), format: l.Top}
	if l.Top == "qcow2" {
		top.base, top.content = basePath(), baseContent()
		if err := bare.QemuImg(ctx, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", top.base, top.path, fmt.Sprint(diskSize)); err != nil {
			return nil, err
		}
	} else if err := makeRaw(top, byte(0x10*number)); err != nil {
		return nil, err
	}
	g.disks = append(g.disks, top)
	if l.Eph {
		eph := &disk{target: "vdb", path: filepath.Join(g.dir, "disk.eph0"), format: "raw"}
		if err := makeRaw(eph, byte(0x10*number+0x40)); err != nil {
			return nil, err
		}
		g.disks = append(g.disks, eph)
	}
	if l.Config {
		drive := &disk{target: "hda", path: filepath.Join(g.dir, "disk.config"), format: "raw", readonly: true}
		if err := makeRaw(drive, byte(0x10*number+0x80)); err != nil {
			return nil, err
		}
		g.disks = append(g.disks, drive)
	}
	for _, d := range g.disks {
		d.nova = d.path
	}
	if err := g.writeDiskInfo(); err != nil {
		return nil, err
	}
	if err := g.own(); err != nil {
		return nil, err
	}
	definition := bare.Definition{Name: g.name, UUID: g.uuid, Dir: g.dir}
	for _, d := range g.disks {
		definition.Disks = append(definition.Disks, bare.Disk{Target: d.target, Path: d.path, Format: d.format, Readonly: d.readonly})
	}
	var err error
	if g.xml, err = definition.XML(); err != nil {
		return nil, err
	}
	g.domain, err = connection.DomainDefineXML(g.xml)
	return g, err
}

// makeRaw makes a raw image whose chunks all differ.
func makeRaw(d *disk, first byte) error {
	for n := range d.content {
		d.content[n] = first + byte(n) + 1
	}
	return os.WriteFile(d.path, d.content.bytes(chunks), 0o644)
}

// writeDiskInfo writes Nova's disk.info.
func (g *guest) writeDiskInfo() error {
	formats := map[string]string{}
	for _, d := range g.disks {
		formats[d.path] = d.format
	}
	body, err := json.Marshal(formats)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(g.dir, "disk.info"), body, 0o644)
}

// own gives the guest's directory and the files there to Nova.
func (g *guest) own() error {
	files, err := filepath.Glob(filepath.Join(g.dir, "*"))
	if err != nil {
		return err
	}
	return bare.Chown(append(files, g.dir)...)
}

// disk returns the guest's disk of a target, nil when it has none.
func (g *guest) disk(target string) *disk {
	for _, d := range g.disks {
		if d.target == target {
			return d
		}
	}
	return nil
}

// keep forgets the disks that a definition does not have.
func (g *guest) keep(defined []libvirtxml.DomainDisk) {
	g.disks = slices.DeleteFunc(g.disks, func(d *disk) bool {
		return !slices.ContainsFunc(defined, func(has libvirtxml.DomainDisk) bool { return has.Target.Dev == d.target })
	})
}

// writeGuest writes one chunk as the guest would, and has QEMU flush it.
func writeGuest(domain *libvirt.Domain, target string, chunk int, pattern byte) error {
	all, err := bare.Backends(domain)
	if err != nil {
		return err
	}
	b, ok := all[target]
	if !ok {
		return fmt.Errorf("%s has no backend", target)
	}
	for _, command := range []string{fmt.Sprintf("write -P %d %d %d", pattern, chunk*chunkSize, chunkSize), "flush"} {
		line := fmt.Sprintf("qemu-io -d %s %q", b.Device, command)
		out, err := domain.QemuMonitorCommand(line, libvirt.DOMAIN_QEMU_MONITOR_COMMAND_HMP)
		if err != nil {
			return err
		}
		if out = strings.TrimSpace(out); out != "" {
			return fmt.Errorf("%s: %s", command, out)
		}
	}
	return nil
}
