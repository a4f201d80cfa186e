package oracle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// paused is true for a guest that somebody has suspended.
func (g *guest) paused() bool {
	state, _, err := g.domain.GetState()
	return err == nil && state == libvirt.DOMAIN_PAUSED
}

func doWrite(_ context.Context, w *world, g *guest, p pick) (string, error) {
	var writable []*disk
	for _, d := range g.disks {
		if !d.readonly {
			writable = append(writable, d)
		}
	}
	if g.pid == 0 || len(writable) == 0 {
		return "", errImpossible
	}
	d := writable[p.of(len(writable))]
	return write(w, g, d, p.of(chunks))
}

// write writes what was never at that place before.
func write(w *world, g *guest, d *disk, chunk int) (string, error) {
	w.writes++
	pattern := byte(w.writes%0x9f) + 1 // below those of the bases
	if pattern == d.content[chunk] {
		pattern++
	}
	if err := writeGuest(g.domain, d.target, chunk, pattern); err != nil {
		return "", err
	}
	d.content[chunk] = pattern
	return fmt.Sprintf("%s writes %#02x to chunk %d of %s", g.name, pattern, chunk, d.target), nil
}

// doSnapshot puts an overlay on top, as a backup tool does. The persistent definition
// follows it, unless somebody defines Nova's again.
func doSnapshot(_ context.Context, w *world, g *guest, _ pick) (string, error) {
	d := g.disk("vda")
	if g.pid == 0 || d == nil {
		return "", errImpossible
	}
	w.backups++
	path := filepath.Join(g.dir, fmt.Sprintf("disk.snap-%d", w.backups))
	var others strings.Builder
	for _, other := range g.disks {
		if other != d {
			fmt.Fprintf(&others, "<disk name='%s' snapshot='no'/>", other.target)
		}
	}
	_, err := g.domain.CreateSnapshotXML(fmt.Sprintf("<domainsnapshot><disks>"+
		"<disk name='vda' snapshot='external'><source file='%s'/></disk>%s</disks></domainsnapshot>", path, others.String()),
		libvirt.DOMAIN_SNAPSHOT_CREATE_DISK_ONLY|libvirt.DOMAIN_SNAPSHOT_CREATE_NO_METADATA|libvirt.DOMAIN_SNAPSHOT_CREATE_ATOMIC)
	text := fmt.Sprintf("virsh snapshot-create-as %s --disk-only --atomic --no-metadata --diskspec vda,file=%s", g.name, path)
	if err != nil {
		return text, err
	}
	id, _, err := bare.Identify(path)
	d.path, d.format = path, "qcow2"
	d.tops = append([]identity{id}, d.tops...)
	w.places[id] = path
	return text, err
}

// doRedefine changes the persistent definition and leaves the running domain as it is.
func doRedefine(_ context.Context, w *world, g *guest, p pick) (string, error) {
	xml, text := g.xml, "virsh define the XML that Nova made for "+g.name
	switch p.of(3) {
	case 1:
		live, err := g.domain.GetXMLDesc(libvirt.DOMAIN_XML_SECURE)
		if err != nil {
			return "", err
		}
		xml, text = live, fmt.Sprintf("virsh dumpxml %[1]s | virsh define", g.name)
	case 2:
		d := g.disk("vda")
		if d == nil {
			return "", errImpossible
		}
		inactive, err := g.domain.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE | libvirt.DOMAIN_XML_SECURE)
		if err != nil {
			return "", err
		}
		to := filepath.Join(g.dir, "disk.bak")
		xml = strings.ReplaceAll(inactive, "'"+d.path+"'", "'"+to+"'")
		text = fmt.Sprintf("virsh define %s with vda in %s", g.name, to)
		if xml == inactive {
			return "", errImpossible
		}
	}
	_, err := w.connection.DomainDefineXML(xml)
	return text, err
}

// doAttach adds a disk to a running guest, in the instance's directory or elsewhere; and
// only to the running one, or to its definition as well.
func doAttach(_ context.Context, w *world, g *guest, p pick) (string, error) {
	if g.pid == 0 || g.disk("vdx") != nil {
		return "", errImpossible
	}
	d := &disk{target: "vdx", path: filepath.Join(g.dir, "volume"), format: "raw"}
	if p.of(2) == 0 {
		d.path = filepath.Join(lab.NovaDir, "mnt", g.name)
	}
	if exists(d.path) {
		return "", errImpossible
	}
	if err := os.MkdirAll(filepath.Dir(d.path), 0o755); err != nil {
		return "", err
	}
	if err := makeRaw(d, byte(0x20*number(w, g)+0x10)); err != nil {
		return "", err
	}
	flags, word := libvirt.DOMAIN_DEVICE_MODIFY_LIVE, "--live"
	if p.of(2) == 0 {
		flags, word = flags|libvirt.DOMAIN_DEVICE_MODIFY_CONFIG, "--live --config"
	}
	text := fmt.Sprintf("virsh attach-disk %s %s vdx %s", g.name, d.path, word)
	err := g.domain.AttachDeviceFlags(fmt.Sprintf(
		"<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='%s'/><target dev='vdx' bus='virtio'/></disk>",
		d.path), flags)
	if err != nil {
		return text, err
	}
	id, _, err := bare.Identify(d.path)
	d.tops = []identity{id}
	w.places[id] = d.path
	g.disks = append(g.disks, d)
	return text, err
}

// doDetach takes the added disk away again. Without an operating system no guest lets go
// of a PCI device; QEMU is reset, which does it (docs/pcie_pci_bridge.txt, "unplug").
func doDetach(_ context.Context, _ *world, g *guest, _ pick) (string, error) {
	d := g.disk("vdx")
	if g.pid == 0 || d == nil {
		return "", errImpossible
	}
	flags := libvirt.DOMAIN_DEVICE_MODIFY_LIVE
	xml := fmt.Sprintf("<disk type='file' device='disk'><source file='%s'/><target dev='vdx' bus='virtio'/></disk>", d.path)
	text := fmt.Sprintf("virsh detach-disk %s vdx --live", g.name)
	if err := g.domain.DetachDeviceFlags(xml, flags); err != nil {
		return text, err
	}
	if err := g.domain.Reset(0); err != nil {
		return text, err
	}
	// It goes a moment later, if it goes.
	err := patience.RetryFor(patience.Of(2*time.Second), func() error {
		left, err := bare.Disks(g.domain, 0)
		if err == nil && slices.ContainsFunc(left, func(l libvirtxml.DomainDisk) bool { return l.Target.Dev == d.target }) {
			err = errors.New("the guest has not let go of it")
		}
		return err
	})
	return text, err
}

func doPause(_ context.Context, _ *world, g *guest, _ pick) (string, error) {
	if g.pid == 0 {
		return "", errImpossible
	}
	if g.paused() {
		return "virsh resume " + g.name, g.domain.Resume()
	}
	return "virsh suspend " + g.name, g.domain.Suspend()
}

func doStop(_ context.Context, _ *world, g *guest, _ pick) (string, error) {
	if g.pid == 0 {
		return "", errImpossible
	}
	return "virsh destroy " + g.name, g.domain.Destroy()
}

// doStart starts a guest that is off. One that would start on something else than it had,
// while some process still has what it had, is left off: from then on there would be two
// truths about it. One whose bytes are gone goes on with what it finds.
func doStart(ctx context.Context, w *world, g *guest, _ pick) (string, error) {
	if g.pid != 0 {
		return "", errImpossible
	}
	t, err := look(ctx, w, g)
	if err != nil {
		return "", err
	}
	if t.starts() && !t.intact() && t.held {
		return "", errImpossible
	}
	text := "virsh start " + g.name
	if err := g.domain.Create(); err != nil || t.intact() {
		return text, err
	}
	return text, adopt(ctx, w, g)
}

// adopt takes what a guest reads for what it should read: it has been started on
// something else, and what it had is gone.
func adopt(ctx context.Context, w *world, g *guest) error {
	if err := w.refresh(); err != nil {
		return err
	}
	data, err := bare.ReadGuest(ctx, g.domain, diskSize)
	if err != nil {
		return err
	}
	for _, d := range g.disks {
		if d.content, err = contentOf(data[d.target]); err != nil {
			return err
		}
	}
	if body, err := os.ReadFile(basePath()); err == nil && slices.ContainsFunc(g.disks, func(d *disk) bool { return d.base != "" }) {
		w.base = body
	}
	w.notes = append(w.notes, g.name+" goes on with what it has found")
	return nil
}

func number(w *world, g *guest) int {
	for n := range w.guests {
		if w.guests[n] == g {
			return n + 1
		}
	}
	return 0
}
