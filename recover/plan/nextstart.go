package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/startable"
)

// wholeButDisputed says of an instance that misses no disk, but that would not start on
// the files that it has, or that runs on others than it has lost, how it is cured. There is
// nothing in it for a run to do.
func wholeButDisputed(i recover.Instance) string {
	var why []string
	switch next := i.AboutNextStart(); {
	case i.LacksBootFilesOnly():
		why = append(why, "its files are in place, but for what it boots from: "+next)
	case next != "":
		why = append(why, "its files are in place, but do not stop or reboot it: "+next)
	}
	if cure := i.CureOfSuperseded(); cure != "" {
		why = append(why, append(i.AboutSuperseded(), cure)...)
	}
	return strings.Join(why, "; ")
}

// starter returns who starts an instance at the end of the run.
func (p *planner) starter() recover.Starter {
	if p.Cloud != nil {
		return recover.StarterNova
	}
	return recover.StarterLibvirt
}

// startsElsewhere says why nothing of an instance may be destroyed or started: it would
// come back on another file than the one that is rescued. Empty when it would not. What
// would not matter in this run, but in a later start, is a warning.
func (p *planner) startsElsewhere(i recover.Instance, todo recover.InstancePlan) string {
	ends := todo.Action == recover.ActionReboot
	starts := todo.Action == recover.ActionPublish && todo.Found != recover.StateShutOff && !p.Options.NoReboot
	if !ends && !starts {
		return ""
	}
	// What is missing, and what this run brings back, keeps no start from it.
	i.NextStart = slices.DeleteFunc(slices.Clone(i.NextStart), func(d recover.Divergence) bool {
		return d.Open == "" && d.Over == "" && slices.ContainsFunc(todo.Files, func(f recover.FilePlan) bool { return f.Path == d.Next })
	})
	why, cure := i.StartsElsewhere(p.starter()), i.CureOfNextStart()
	if why == "" && starts && p.Command == recover.CommandRestore {
		d, found := olderThanItsDefinition(i.Definition, todo.Files)
		if found {
			why, cure = d.Sentence(), d.Cure(i.Domain)
		}
	}
	switch {
	case why == "":
		return ""
	case starts:
		return fmt.Sprintf("%s; --no-reboot puts its files back and leaves it off, and then: %s", why, cure)
	case todo.NotLive != "":
		return fmt.Sprintf("%s, and mode live, which would keep it on the file that it has, can't rescue it: %s", why, todo.NotLive)
	case p.Command == recover.CommandRestore:
		return fmt.Sprintf("%s: nothing was destroyed; first: %s", why, cure)
	default:
		return fmt.Sprintf("%s: nothing was destroyed; --mode live brings its files back and keeps it on the file that it has, "+
			"and then: %s", why, cure)
	}
}

// wouldNotStart says why nothing of an instance may be ended: it would not start again on
// this host. Empty when nothing is known against it. Of one that has ended already, and of
// one that the run leaves off, it is a warning: its files come back in any case. So is what
// can't be found out. The error is the context's.
func (p *planner) wouldNotStart(ctx context.Context, i recover.Instance, todo recover.InstancePlan) (string, error) {
	ends := todo.Action == recover.ActionReboot || todo.Action == recover.ActionHardReboot && !p.Options.Reboot.Remote
	if !ends && (todo.Action != recover.ActionPublish || todo.Found == recover.StateShutOff) {
		return "", nil
	}
	why, err := startable.WhyNot(ctx, p.Hypervisor, p.Settings, i.UUID, p.starter())
	if unread := p.unreadable(i, todo); unread != "" {
		why = strings.Join(slices.DeleteFunc([]string{why, unread}, func(text string) bool { return text == "" }), "; ")
	}
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		p.warn("whether %s would start again could not be found out in full: %v", i.Domain, err)
		return "", nil
	case why == "":
		return "", nil
	case ends && !p.Options.NoReboot && todo.Action == recover.ActionHardReboot:
		return "it would not start again: " + why, nil
	case ends && !p.Options.NoReboot:
		return fmt.Sprintf("it would not start again, so it is not ended: %s. Or: --mode live brings its files back while it runs, "+
			"and --no-reboot puts them back and leaves it off", why), nil
	}
	p.warn("%s would not start as this host is: %s", i.Domain, why)
	return "", nil
}

// wouldLose says which state beside the disks of a guest would end with its QEMU, because it is
// gone from the disk; empty when nothing would, or the operator has agreed to that. Where the
// plan lets the guest run, that is a warning. The error is the context's.
func (p *planner) wouldLose(ctx context.Context, i recover.Instance, todo recover.InstancePlan) (string, error) {
	ends := todo.Action == recover.ActionReboot || todo.Action == recover.ActionHardReboot
	has := slices.Contains(i.Losses, recover.LossVTPM) || slices.Contains(i.Losses, recover.LossVPMEM)
	if !has || i.PID == 0 || p.Options.Reboot.Remote {
		return "", nil
	}
	missing, err := startable.MissingState(ctx, p.Hypervisor, p.Settings, i.UUID, p.Options.AcceptLoss)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		if !ends {
			p.warn("%s: whether its TPM and its persistent memory are still on the disk could not be found out: %v", i.Domain, err)
			return "", nil
		}
		return fmt.Sprintf("whether its TPM and its persistent memory are still on the disk could not be found out: %v", err), nil
	case missing.Text == "":
		return "", nil
	}
	why := missing.Text + " was deleted: the guest still works with it in memory, and any end of its QEMU loses it, that of a later stop too"
	switch {
	case !ends:
		p.warn("%s: %s; have its owner save what it protects or contains first (recovery keys, data)", i.Domain, why)
		return "", nil
	case todo.NotLive != "":
		why += "; mode live, which would not end it, can't rescue it: " + todo.NotLive
	case todo.Action != recover.ActionHardReboot:
		why += "; os-rescue --mode live brings its disks back without ending it"
	}
	return fmt.Sprintf("%s; have its owner save what it protects or contains first (recovery keys, data); --accept-loss %s agrees to lose it",
		why, strings.Join(missing.Losses, ",")), nil
}

// unreadable says which files that stay as they are Nova could not read; empty when it starts
// nothing, or can. Nova's hard reboot has qemu-img look at every qcow2 disk (not below it) as
// nova-compute's user, after the destroy (nova/virt/libvirt/driver.py, _hard_reboot and
// _get_instance_disk_info_from_config; nova/privsep/qemu.py, unprivileged_qemu_img_info). libvirt leaves root:root 0600 where it made a
// file itself (virsh blockcopy), or gives a disk back. What is QEMU's alone may become nova's
// again at the destroy (remember_owner in qemu.conf), and a mode with any bit for others than the
// owner may let nova read it by a group or an access list.
func (p *planner) unreadable(i recover.Instance, todo recover.InstancePlan) string {
	if p.starter() != recover.StarterNova {
		return ""
	}
	nova, err := p.root.LookupUser(p.Settings.Owners.InstancesDir.User)
	if err != nil || nova == 0 {
		return ""
	}
	var paths, modes []string
	for _, f := range i.Files {
		given := slices.ContainsFunc(todo.Files, func(file recover.FilePlan) bool { return file.Path == f.Path })
		if given || f.Role != recover.RoleDisk || f.Format != "qcow2" || !recover.IsBelow(f.Path, p.Settings.InstancesPath) {
			continue
		}
		st, err := p.root.Lstat(f.Path)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Uid == 0 && st.Mode&0o077 == 0 {
			paths = append(paths, f.Path)
			modes = append(modes, fmt.Sprintf("%s (%d:%d %04o)", f.Path, st.Uid, st.Gid, st.Mode&0o7777))
		}
	}
	if len(paths) == 0 {
		return ""
	}
	return fmt.Sprintf("nova-compute can't read %s, which it does before it starts a guest: chmod %04o %s",
		strings.Join(modes, ", "), p.Settings.Owners.Disk.Mode, strings.Join(paths, " "))
}

// olderThanItsDefinition finds a disk in a backup of a domain that is off by now whose
// definition names another file in its place: it would be started on that one. The disk
// of a rescue mode that has ended is missed by nobody.
func olderThanItsDefinition(d recover.Domain, stored []recover.FilePlan) (recover.Divergence, bool) {
	for _, f := range stored {
		if f.Role != recover.RoleDisk || !f.Writable || strings.HasSuffix(f.Path, ".rescue") {
			continue
		}
		named := slices.ContainsFunc(d.Disks, func(disk recover.Disk) bool { return disk.Chain[0].Path == f.Path })
		n := slices.IndexFunc(d.Disks, func(disk recover.Disk) bool { return disk.Target == f.Target })
		if !named && n >= 0 {
			return recover.Divergence{Target: f.Target, By: []recover.Starter{recover.StarterLibvirt},
				Open: f.Path, Next: d.Disks[n].Chain[0].Path, Writable: true}, true
		}
	}
	return recover.Divergence{}, false
}
