package recover

import (
	"path/filepath"
	"strings"
)

// expectedFiles lists the files that a domain's definition names, each once. A
// backing file comes before its overlays: that is the order to put them back in.
func expectedFiles(d Domain, instancesPath string) []File {
	var files []File
	seen := map[string]bool{}
	add := func(f File) {
		if f.Path != "" && !seen[f.Path] {
			seen[f.Path] = true
			f.Holders = []Holder{}
			files = append(files, f)
		}
	}
	for _, disk := range d.Disks {
		for i := len(disk.Chain) - 1; i > 0; i-- {
			if m := disk.Chain[i]; m.Source == SourceFile {
				add(File{Path: m.Path, Role: RoleBacking, Format: m.Format, Target: disk.Target, Backing: backingOf(disk, i)})
			}
		}
		if top := disk.Chain[0]; top.Source == SourceFile {
			f := File{
				Path:     top.Path,
				Role:     RoleDisk,
				Format:   top.Format,
				Target:   disk.Target,
				Backing:  backingOf(disk, 0),
				Writable: !disk.ReadOnly,
			}
			// Nova names its config drive so (nova/virt/libvirt/driver.py, 'disk.config').
			if filepath.Base(top.Path) == "disk.config" {
				f.Role = RoleConfigDrive
			}
			add(f)
		}
	}
	if d.NVRAM != "" {
		format := d.NVRAMFormat
		if format == "" {
			format = "raw"
		}
		add(File{Path: d.NVRAM, Role: RoleNVRAM, Format: format, Writable: true})
	}
	for _, path := range d.ConsoleLogs {
		add(File{Path: path, Role: RoleConsoleLog, Format: "raw"})
	}
	if d.Nova != nil && len(diskInfo(d, instancesPath)) > 0 {
		add(File{Path: filepath.Join(instancesPath, d.UUID, diskInfoName), Role: RoleDiskInfo, Format: "raw"})
	}
	return files
}

// backingOf returns the path of the backing file of the i-th image in a disk's
// chain; empty for the last.
func backingOf(d Disk, i int) string {
	if i+1 < len(d.Chain) {
		return d.Chain[i+1].Path
	}
	return ""
}

// diskInfo returns the entries of a domain's disk.info: the driver format of every
// disk that is a file in the instance's own directory, by path. Nova writes one for
// each image that it opens by path (nova/virt/libvirt/imagebackend.py,
// Image.resolve_driver_format).
func diskInfo(d Domain, instancesPath string) map[string]string {
	info := map[string]string{}
	dir := filepath.Join(instancesPath, d.UUID) + "/"
	for _, disk := range d.Disks {
		top := disk.Chain[0]
		if top.Source == SourceFile && top.Format != "" && strings.HasPrefix(top.Path, dir) {
			info[top.Path] = top.Format
		}
	}
	return info
}

// hasLocalDisk is true when any image of the domain is a file.
func hasLocalDisk(d Domain) bool {
	for _, disk := range d.Disks {
		for _, m := range disk.Chain {
			if m.Source == SourceFile {
				return true
			}
		}
	}
	return false
}
