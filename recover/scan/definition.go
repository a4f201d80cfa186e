package scan

import (
	"path/filepath"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// ExpectedFiles lists the files that a domain's definition names, each once. A
// backing file comes before its overlays: that is the order to put them back in.
func ExpectedFiles(d recover.Domain, instancesPath string) []recover.File {
	var files []recover.File
	seen := map[string]bool{}
	add := func(f recover.File) {
		if f.Path != "" && !seen[f.Path] {
			seen[f.Path] = true
			f.Holders = []recover.Holder{}
			files = append(files, f)
		}
	}
	for _, disk := range d.Disks {
		for i := len(disk.Chain) - 1; i > 0; i-- {
			if m := disk.Chain[i]; m.Source == recover.SourceFile {
				add(recover.File{Path: m.Path, Role: recover.RoleBacking, Format: m.Format, Target: disk.Target, Backing: backingOf(disk, i)})
			}
		}
		if top := disk.Chain[0]; top.Source == recover.SourceFile {
			f := recover.File{
				Path:     top.Path,
				Role:     recover.RoleDisk,
				Format:   top.Format,
				Target:   disk.Target,
				Backing:  backingOf(disk, 0),
				Writable: !disk.ReadOnly,
				// Where a domain is off, it is the disk itself.
				Temporary: disk.Transient && d.PID != 0 && len(disk.Chain) > 1,
			}
			// Nova names its config drive so (nova/virt/libvirt/driver.py, 'disk.config').
			if filepath.Base(top.Path) == "disk.config" {
				f.Role = recover.RoleConfigDrive
			}
			add(f)
		}
	}
	if d.NVRAM != "" {
		format := d.NVRAMFormat
		if format == "" {
			format = "raw"
		}
		add(recover.File{Path: d.NVRAM, Role: recover.RoleNVRAM, Format: format, Writable: true})
	}
	for _, path := range d.ConsoleLogs {
		add(recover.File{Path: path, Role: recover.RoleConsoleLog, Format: "raw"})
	}
	if d.Nova != nil && len(DiskInfo(d, instancesPath)) > 0 {
		add(recover.File{Path: filepath.Join(instancesPath, d.UUID, recover.DiskInfoName), Role: recover.RoleDiskInfo, Format: "raw"})
	}
	return files
}

// backingOf returns the path of the backing file of the i-th image in a disk's
// chain; empty for the last.
func backingOf(d recover.Disk, i int) string {
	if i+1 < len(d.Chain) {
		return d.Chain[i+1].Path
	}
	return ""
}

// DiskInfo returns the entries of a domain's disk.info: the driver format of every
// disk that is a file in the instance's own directory, below instancesPath, by path. It
// is empty when there is no such disk. Nova writes an entry for each image that it opens
// by path (nova/virt/libvirt/imagebackend.py, Image.resolve_driver_format).
func DiskInfo(d recover.Domain, instancesPath string) map[string]string {
	info := map[string]string{}
	dir := filepath.Join(instancesPath, d.UUID) + "/"
	for _, disk := range d.Disks {
		top := disk.Chain[0]
		if top.Source == recover.SourceFile && top.Format != "" && strings.HasPrefix(top.Path, dir) {
			info[top.Path] = top.Format
		}
	}
	return info
}
