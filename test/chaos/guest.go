package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/test/bare"
	"github.com/os-rescue/os-rescue/test/lab"
)

// guest is an instance without an operating system.
type guest struct {
	name, uuid, dir string
	socket          string // of its QEMU's second monitor
	disks           []*disk
	writer          *writer
}

// disk is one disk of a guest.
type disk struct {
	bare.Disk
	ledger *ledger

	last  bare.Identity // of the file that its QEMU had, once known
	known bool

	mu  sync.Mutex
	why string // see excuse
}

// excuse says why nothing could keep what the disk's QEMU had: a fault took the last thing
// that held it, before os-rescue had proven a copy. Empty when there was something.
func (d *disk) excuse() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.why
}

func (d *disk) forgive(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.why == "" {
		d.why = why
	}
}

// basePath is where the image is that all overlays stand on.
func basePath() string { return filepath.Join(lab.BaseDir, "c4a05c4a05c4a05c4a05c4a05c4a05c4a05c4a05") }

// makeBase makes it.
func makeBase(ctx context.Context) error {
	if err := qemuIO(ctx, "raw", basePath(), basePattern, diskSize, true); err != nil {
		return err
	}
	return bare.Chown(lab.BaseDir, basePath())
}

// newGuest makes the files of a guest, with every block written once, and starts it.
// layout is "qcow2", "raw" or "qcow2+eph0".
func newGuest(ctx context.Context, connection *libvirt.Connect, number int, layout string) (*guest, error) {
	uuid := fmt.Sprintf("%08d-0000-4000-8000-000000000000", number)
	g := &guest{name: fmt.Sprintf("instance-%08x", number), uuid: uuid, dir: filepath.Join(lab.InstancesDir, uuid)}
	g.socket = filepath.Join(bare.SocketDir, g.name+".qmp")
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return nil, err
	}
	add := func(target, name, format string) {
		g.disks = append(g.disks, &disk{
			Disk:   bare.Disk{Target: target, Path: filepath.Join(g.dir, name), Format: format},
			ledger: newLedger(),
		})
	}
	switch layout {
	case "qcow2":
		add("vda", "disk", "qcow2")
	case "raw":
		add("vda", "disk", "raw")
	case "qcow2+eph0":
		add("vda", "disk", "qcow2")
		add("vdb", "disk.eph0", "raw")
	default:
		return nil, fmt.Errorf("no layout is called %q", layout)
	}
	definition := bare.Definition{Name: g.name, UUID: g.uuid, Dir: g.dir, Monitor: g.socket}
	formats, owned := map[string]string{}, []string{g.dir}
	for _, d := range g.disks {
		if d.Format == "qcow2" {
			if err := bare.QemuImg(ctx, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", basePath(), d.Path); err != nil {
				return nil, err
			}
		}
		if err := qemuIO(ctx, d.Format, d.Path, firstPattern, blocks*blockSize, d.Format == "raw"); err != nil {
			return nil, err
		}
		definition.Disks = append(definition.Disks, d.Disk)
		formats[d.Path], owned = d.Format, append(owned, d.Path)
	}
	body, err := json.Marshal(formats)
	if err != nil {
		return nil, err
	}
	info := filepath.Join(g.dir, "disk.info")
	if err := os.WriteFile(info, body, 0o644); err != nil {
		return nil, err
	}
	if err := bare.Chown(append(owned, info)...); err != nil {
		return nil, err
	}
	xml, err := definition.XML()
	if err != nil {
		return nil, err
	}
	domain, err := connection.DomainDefineXML(xml)
	if err != nil {
		return nil, err
	}
	return g, domain.Create()
}
