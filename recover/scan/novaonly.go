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
// gone (nova/virt/libvirt/driver.py, _hard_reboot), and leaves it so when it fails for any
// other reason too. What the next start will open is judged by the guard's record of the
// domain, or by what Nova will define: what stands in the instance's directory.
func (l *look) novaOnly(ctx context.Context, server recover.Server) (recover.Instance, error) {
	if r, ok := l.records[server.UUID]; ok {
		i, err := l.instance(ctx, r.AsOff())
		if err != nil {
			return i, err
		}
		i.GuardOnly = true
		return withoutDomain(i, server), nil
	}
	i := recover.Instance{
		UUID:       server.UUID,
		Domain:     server.Domain,
		Name:       server.Name,
		ProjectID:  server.ProjectID,
		State:      recover.StateShutOff,
		Definition: recover.Domain{UUID: server.UUID, Name: server.Domain, State: recover.StateShutOff},
	}
	stands := standingOf(l.root, l.settings.InstancesPath, server)
	i.Files = stands.addTo(l.namedFiles(server.UUID, l.pins.files(server.UUID, nil)))
	if err := l.files(ctx, &i, nil, l.root); err != nil {
		return i, err
	}
	verdict.Instance(&i)
	if i.Misplaced = misplaced(i, l.settings); i.Misplaced != "" {
		i.Reasons = append(i.Reasons, i.Misplaced)
	}
	isDisk := func(f recover.File) bool { return f.Role == recover.RoleDisk }
	if i.Verdict == recover.VerdictUnaffected && slices.ContainsFunc(i.Files, isDisk) {
		i.Verdict = recover.VerdictIntact // it is no domain that names them
	}
	if settled := i.Verdict == recover.VerdictIntact || i.Verdict == recover.VerdictUnaffected; settled && len(stands.doubts) > 0 {
		i.Verdict = recover.VerdictUnknown
		i.Reasons = append(i.Reasons, stands.doubts...)
		i.Possible = append(i.Possible, "look at what is named, then let Nova try: openstack server reboot --hard "+server.UUID)
	}
	if err := writtenUnknown(ctx, l, &i); err != nil {
		return i, err
	}
	return withoutDomain(i, server), nil
}

// withoutDomain says what it means for an instance that was looked at that libvirt does not
// know its domain.
func withoutDomain(i recover.Instance, server recover.Server) recover.Instance {
	i.NoDomain = true
	if i.Name == "" {
		i.Name = server.Name
	}
	if i.ProjectID == "" {
		i.ProjectID = server.ProjectID
	}
	switch i.Verdict {
	case recover.VerdictIntact, recover.VerdictUnaffected:
		i.Reasons = append(i.Reasons, "libvirt does not know its domain, which a hard reboot that failed undefines; its files are whole")
		i.Possible = append(i.Possible,
			fmt.Sprintf("a hard reboot defines it anew: os-rescue reboot --instance %s --state %s", i.UUID, server.Status))
	case recover.VerdictLost:
		i.Reasons = append(i.Reasons, fmt.Sprintf("Nova has it here as %s, but libvirt does not know its domain, "+
			"and no process that os-rescue knows of holds what is gone", server.Status))
		one := []recover.Instance{i}
		explainLost(one)
		i = one[0]
		i.Possible = append(i.Possible, "if a process still has its files open (see `lsof +L1 | grep "+i.UUID+"`), "+
			"name it with --holder PID")
	}
	return i
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
