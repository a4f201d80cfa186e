package recovertest

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// filesOf lists the files that a domain's QEMU and its log daemon open, each once,
// a backing file before what lies on it.
func filesOf(d recover.Domain) []recover.File {
	var files []recover.File
	seen := map[string]bool{}
	add := func(f recover.File) {
		if f.Path != "" && !seen[f.Path] {
			seen[f.Path] = true
			files = append(files, f)
		}
	}
	for _, disk := range d.Disks {
		for i := len(disk.Chain) - 1; i > 0; i-- {
			if m := disk.Chain[i]; m.Source == recover.SourceFile {
				add(recover.File{Path: m.Path, Role: recover.RoleBacking, Format: m.Format, Target: disk.Target})
			}
		}
		if top := disk.Chain[0]; top.Source == recover.SourceFile {
			add(recover.File{Path: top.Path, Role: recover.RoleDisk, Format: top.Format, Target: disk.Target, Writable: !disk.ReadOnly})
		}
	}
	add(recover.File{Path: d.NVRAM, Role: recover.RoleNVRAM, Format: "raw", Writable: true})
	for _, path := range d.ConsoleLogs {
		add(recover.File{Path: path, Role: recover.RoleConsoleLog, Format: "raw"})
	}
	return files
}

// diskInfo is what Nova writes into an instance's disk.info: the format of every
// disk that is a file in the instance's own directory.
func diskInfo(d recover.Domain, dir string) ([]byte, error) {
	formats := map[string]string{}
	for _, disk := range d.Disks {
		top := disk.Chain[0]
		if top.Source == recover.SourceFile && top.Format != "" && filepath.Dir(top.Path) == strings.TrimSuffix(dir, "/") {
			formats[top.Path] = top.Format
		}
	}
	data, err := json.Marshal(formats)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", recover.DiskInfoName, err)
	}
	return data, nil
}
