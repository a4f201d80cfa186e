package scan

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// novaOnly scans an instance that Nova has on this host but whose domain libvirt does
// not know: Nova's hard reboot undefines the domain before it finds that the disk is
// gone (nova/virt/libvirt/driver.py, _hard_reboot). Only the files that the keeper,
// the guard or the operator's named processes hold can still be saved.
func (l *look) novaOnly(ctx context.Context, server recover.Server) (recover.Instance, error) {
	i := recover.Instance{
		UUID:       server.UUID,
		Domain:     server.Domain,
		Name:       server.Name,
		ProjectID:  server.ProjectID,
		State:      recover.StateShutOff,
		Files:      []recover.File{},
		Definition: recover.Domain{UUID: server.UUID, Name: server.Domain, State: recover.StateShutOff},
	}
	i.Files = l.namedFiles(server.UUID, l.pins.files(server.UUID, nil))
	if err := l.files(ctx, &i, nil, l.root); err != nil {
		return i, err
	}
	verdict.Instance(&i)
	if !slices.ContainsFunc(i.Files, func(f recover.File) bool { return f.Role == recover.RoleDisk && len(f.Holders) > 0 }) {
		i.Verdict = recover.VerdictLost
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
func (l *look) namedFiles(uuid string, files []recover.File) []recover.File {
	dir, cache := filepath.Join(l.settings.InstancesPath, uuid), filepath.Join(l.settings.InstancesPath, "_base")
	var bases, own []recover.File
	for _, h := range l.named {
		if !h.Unlinked() {
			continue
		}
		path := procfs.PathsOf(h.Link, true)[0]
		same := func(f recover.File) bool { return f.Path == path }
		if slices.ContainsFunc(slices.Concat(files, bases, own), same) {
			continue
		}
		name := filepath.Base(path)
		f := recover.File{Path: path, Role: recover.RoleDisk, Holders: []recover.Holder{}}
		switch {
		case filepath.Dir(path) == cache && isCachedName(name):
			f.Role = recover.RoleBacking
			bases = append(bases, f)
			continue
		case filepath.Dir(path) != dir:
			continue
		case name == "console.log":
			f.Role = recover.RoleConsoleLog
		case name == "disk.config":
			f.Role = recover.RoleConfigDrive
		case name == "disk", strings.HasPrefix(name, "disk."):
			f.Writable = true
		default:
			continue
		}
		own = append(own, f)
	}
	return slices.Concat(bases, files, own)
}
