package recover

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// novaOnly scans an instance that Nova has on this host but whose domain libvirt does
// not know: Nova's hard reboot undefines the domain before it finds that the disk is
// gone (nova/virt/libvirt/driver.py, _hard_reboot). Only the files that the keeper,
// the guard or the operator's named processes hold can still be saved.
func (l *look) novaOnly(server Server) (Instance, error) {
	i := Instance{
		UUID:      server.UUID,
		Domain:    server.Domain,
		Name:      server.Name,
		ProjectID: server.ProjectID,
		State:     StateShutOff,
		Files:     []File{},
		domain:    Domain{UUID: server.UUID, Name: server.Domain, State: StateShutOff},
	}
	held := slices.Concat(l.pins.of(server.UUID), l.named)
	i.Files = l.namedFiles(server.UUID, l.pins.files(server.UUID, nil))
	others := map[string]bool{}
	for _, f := range i.Files {
		others[f.Path] = true
	}
	for n := range i.Files {
		f := &i.Files[n]
		f.resolved = l.root.Resolve(f.Path)
		if err := classify(f, held, l.root, l.root, others); err != nil {
			return i, fmt.Errorf("%s can't be looked at: %w", f.Path, err)
		}
	}
	judge(&i)
	if !slices.ContainsFunc(i.Files, func(f File) bool { return f.Role == RoleDisk && len(f.Holders) > 0 }) {
		i.Verdict = VerdictLost
		i.Reasons = append(i.Reasons, fmt.Sprintf("Nova has it here as %s, but libvirt does not know its domain, "+
			"and no process that os-rescue knows of holds its disk", server.Status))
		i.Possible = append(i.Possible, "if a process still has its files open (see `lsof +L1 | grep "+server.UUID+"`), "+
			"name it with --holder PID; else restore it from a backup or a snapshot")
	}
	return i, nil
}

// namedFiles adds the deleted files of an instance that the operator's named processes
// hold. Nova's names tell their roles (nova/virt/libvirt/driver.py and
// imagebackend.py); their formats are unknown.
func (l *look) namedFiles(uuid string, files []File) []File {
	dir, cache := filepath.Join(l.settings.InstancesPath, uuid), filepath.Join(l.settings.InstancesPath, "_base")
	var bases, own []File
	for _, h := range l.named {
		if !h.unlinked() {
			continue
		}
		path := heldPaths(h.Link, true)[0]
		same := func(f File) bool { return f.Path == path }
		if slices.ContainsFunc(slices.Concat(files, bases, own), same) {
			continue
		}
		name := filepath.Base(path)
		f := File{Path: path, Role: RoleDisk, Holders: []Holder{}}
		switch {
		case filepath.Dir(path) == cache && isCachedName(name):
			f.Role = RoleBacking
			bases = append(bases, f)
			continue
		case filepath.Dir(path) != dir:
			continue
		case name == "console.log":
			f.Role = RoleConsoleLog
		case name == "disk.config":
			f.Role = RoleConfigDrive
		case name == "disk", strings.HasPrefix(name, "disk."):
			f.Writable = true
		default:
			continue
		}
		own = append(own, f)
	}
	return slices.Concat(bases, files, own)
}
