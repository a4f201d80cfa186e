package recovertest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/os-rescue/os-rescue/recover"
)

// fakeExport are disks as they were at one moment. A scratch file holds all of its
// disk, where QEMU's holds what was overwritten since.
type fakeExport struct {
	dir      string // of the socket
	listener net.Listener
	scratch  []string
	files    map[string]*os.File // what is served, by target
}

func (d *FakeDomain) beginExport(ctx context.Context, disks []recover.ExportDisk) (string, error) {
	if d.QEMU == nil {
		return "", errOff
	}
	if d.export != nil || d.Job != "" {
		return "", errJob
	}
	for _, disk := range disks {
		if _, err := d.disk(disk.Target); err != nil {
			return "", err
		}
	}
	dir, err := os.MkdirTemp("", "fake-qemu-")
	if err != nil {
		return "", err
	}
	d.export = &fakeExport{dir: dir, files: map[string]*os.File{}}
	if err := d.serve(ctx, disks); err != nil {
		d.endExport()
		return "", err
	}
	d.Job = "backup"
	for _, disk := range disks {
		d.setJob(disk.Target, "backup")
	}
	return d.export.socket(), nil
}

func (e *fakeExport) socket() string { return filepath.Join(e.dir, "export.sock") }

func (d *FakeDomain) serve(ctx context.Context, disks []recover.ExportDisk) error {
	e := d.export
	for _, disk := range disks {
		_, err := d.copyDisk(disk.Target, func() (*os.File, error) {
			f, err := os.OpenFile(disk.Scratch, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
			if err == nil {
				e.scratch = append(e.scratch, disk.Scratch)
			}
			return f, err
		})
		if err != nil {
			return fmt.Errorf("export %s: %w", disk.Target, err)
		}
		if e.files[disk.Target], err = os.Open(disk.Scratch); err != nil {
			return err
		}
	}
	var err error
	var config net.ListenConfig
	if e.listener, err = config.Listen(context.WithoutCancel(ctx), "unix", e.socket()); err != nil {
		return err
	}
	go serveNBD(e.listener, e.files)
	return nil
}

func (d *FakeDomain) endExport() {
	e := d.export
	if e == nil {
		return
	}
	if e.listener != nil {
		_ = e.listener.Close()
	}
	for target, f := range e.files {
		f.Close()
		d.setJob(target, "")
	}
	for _, path := range e.scratch {
		_ = os.Remove(path) // a test may have removed it
	}
	_ = os.RemoveAll(e.dir)
	d.export, d.Job = nil, ""
}
