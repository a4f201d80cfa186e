package oracle

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/os-rescue/os-rescue/test/ground"
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

func chown(paths ...string) error {
	uid, err := ground.UserID("nova")
	if err != nil {
		return err
	}
	gid, err := ground.GroupID("nova")
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := os.Lchown(path, uid, gid); err != nil {
			return err
		}
	}
	return nil
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
	return chown(lab.BaseDir, path)
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
		if err := qemuImg(ctx, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", top.base, top.path, fmt.Sprint(diskSize)); err != nil {
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
	var xml strings.Builder
	if err := domainTemplate.Execute(&xml, map[string]any{
		"Name": g.name, "UUID": g.uuid, "Dir": g.dir, "Disks": g.disks, "Path": func(d *disk) string { return d.path },
	}); err != nil {
		return nil, err
	}
	g.xml = xml.String()
	var err error
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
	return chown(append(files, g.dir)...)
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

func qemuImg(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "qemu-img", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Target, Path, Format and Readonly are for the template.
func (d *disk) Target() string { return d.target }
func (d *disk) Path() string   { return d.path }
func (d *disk) Format() string { return d.format }
func (d *disk) Readonly() bool { return d.readonly }

// The domain as Nova's libvirt driver would define it, as far as files are concerned.
var domainTemplate = template.Must(template.New("domain").Parse(`<domain type='qemu'>
  <name>{{.Name}}</name>
  <uuid>{{.UUID}}</uuid>
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:name>{{.Name}}</nova:name>
      <nova:owner>
        <nova:user uuid="6ac1ea0bb1d94a3fa4e6c1dbc8ff2d4f">operator</nova:user>
        <nova:project uuid="c1d2e3f4a5b64798a0b1c2d3e4f50617">production</nova:project>
      </nova:owner>
    </nova:instance>
  </metadata>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model fallback='allow'>qemu64</model></cpu>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <devices>
{{- range .Disks}}
    <disk type='file' device='{{if .Readonly}}cdrom{{else}}disk{{end}}'>
      <driver name='qemu' type='{{.Format}}' cache='none'{{if not .Readonly}} discard='unmap'{{end}}/>
      <source file='{{.Path}}'/>
      <target dev='{{.Target}}' bus='{{if .Readonly}}ide{{else}}virtio{{end}}'/>
{{- if .Readonly}}
      <readonly/>
{{- end}}
    </disk>
{{- end}}
    <serial type='pty'><log file='{{.Dir}}/console.log' append='off'/><target port='0'/></serial>
    <video><model type='none'/></video>
    <memballoon model='none'/>
  </devices>
</domain>
`))
