package recover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// planner decides what a run will do to each instance. It only looks.
type planner struct {
	settings Settings
	root     *beneath.Root
	options  Options
	// unsettled are instances that an unfinished run has in hand, by UUID.
	unsettled map[string]string
	resuming  bool // the plan is made anew by resume

	mirrors  Mirrors                   // nil where nothing is mirrored
	support  *MirrorSupport            // once asked
	cloud    Cloud                     // nil offline
	services map[string]ComputeService // by host
	warnings []string
}

// base returns what every plan of an instance begins with.
func base(i Instance) InstancePlan {
	return InstancePlan{UUID: i.UUID, Domain: i.Domain, Name: i.Name, ProjectID: i.ProjectID, ProjectName: i.ProjectName,
		Verdict: i.Verdict, Found: i.State, Process: i.process, DACLabel: i.domain.DACLabel, ImageLabel: i.domain.ImageLabel, Server: i.server}
}

// rescue plans the rescue of one scanned instance.
func (p *planner) rescue(ctx context.Context, i Instance) (InstancePlan, error) {
	plan := base(i)
	if run := p.unsettled[i.UUID]; run != "" {
		return plan.refuse("%s", inHand(run)), nil
	}
	if i.Verdict == VerdictIntact || i.Verdict == VerdictUnaffected {
		if i.disagreement != "" {
			p.warn("%s is %s and left alone, but: %s", i.Domain, i.Verdict, i.disagreement)
		}
		plan.Action = ActionNone
		return plan, nil
	}
	if refusal, ok := p.preclude(i); ok {
		return plan.refuse("%s", refusal), nil
	}
	for _, f := range i.Files {
		if f.Role == RoleOther && !f.guarded || !f.Lost() && (f.Role != RoleDiskInfo || f.State != FileMissing) {
			continue
		}
		fp, err := p.file(i, f)
		if err != nil {
			return plan.refuse("%v", err), nil
		}
		plan.Files = append(plan.Files, fp)
	}
	plan.Action = ActionPutBack
	if anyWritable(plan.Files) {
		plan.Action = ActionReboot
		if i.PID == 0 {
			plan.Action = ActionPublish
		}
	}
	if reason := handsOff(i.domain); reason != "" {
		return plan.refuse("%s", reason), nil
	}
	if plan.Action == ActionReboot && (p.options.Mode == ModeLive || p.options.Mode == ModeAuto) {
		why, err := p.notLive(ctx, i, plan)
		switch {
		case err != nil:
			return plan, err
		case why == "":
			plan.Action = ActionLive
		case p.options.Mode == ModeLive:
			return plan.refuse("it can't be rescued live: %s", why), nil
		default:
			plan.NotLive = why
		}
	}
	if err := p.backupFree(i.UUID); err != nil {
		return plan.refuse("%v", err), nil
	}
	if plan.Action == ActionReboot && !i.domain.Persistent {
		return plan.refuse("its domain is transient: a destroy would undefine it, and nothing could start it again"), nil
	}
	plan.Found = foundByNova(i)
	if why, err := p.refuseByNova(ctx, i, plan); why != "" || err != nil {
		return plan.refuse("%s", why), err
	}
	plan.Steps = p.steps(plan)
	return plan, nil
}

// foundByNova is the state to bring an instance back to. For one whose QEMU is
// gone because Nova failed to reboot it, that is the one before; for one that ran
// when the guard saw its files deleted, and has been ended since, that it ran.
func foundByNova(i Instance) DomainState {
	ran := i.before == StateRunning || i.before == StatePaused
	switch {
	case i.PID != 0:
		return i.State
	case i.server == nil && ran, ran && i.server.VMState == VMStopped:
		return i.before
	case i.server == nil:
		return i.State
	}
	forgotten := i.forgotten || i.domain.Nova == nil && len(i.domain.Disks) == 0
	switch {
	case i.server.VMState == VMError, forgotten && i.server.VMState == VMActive:
		return StateRunning
	case forgotten && i.server.VMState == VMPaused:
		return StatePaused
	}
	return i.State
}

// preclude says why an instance can't be worked on whatever its files are like.
func (p *planner) preclude(i Instance) (string, bool) {
	why := strings.Join(append(i.Reasons, i.Possible...), "; ")
	switch {
	case i.disagreement != "":
		return i.disagreement, true
	case i.Verdict == VerdictUnknown, i.Verdict == VerdictDisplaced, i.Verdict == VerdictLost:
		return why, true
	case i.server == nil && i.domain.Nova == nil && p.options.Selection.All:
		return "it has no Nova metadata, so --all does not mean it: name it with --instance " + i.UUID, true
	}
	return "", false
}

// inHand says that an unfinished run has an instance.
func inHand(run string) string {
	return fmt.Sprintf("run %s has it in hand and is not finished: os-rescue resume %s", run, run)
}

// draft takes over what the scan knows of a file; disk.info, which nobody holds,
// is made from the definition.
func (p *planner) draft(i Instance, f File) (FilePlan, error) {
	plan := FilePlan{Path: f.Path, Role: f.Role, Format: f.Format, Target: f.Target, Backing: f.Backing, Size: f.Size,
		Allocated: f.Allocated, Device: f.Device, Inode: f.Inode, Writable: f.Writable}
	if f.Role != RoleDiskInfo {
		return plan, nil
	}
	content, err := f.kept, error(nil)
	if content == "" {
		content, err = diskInfoContent(diskInfo(i.domain, p.settings.InstancesPath))
	}
	plan.Content, plan.Size, plan.Device, plan.Inode = content, int64(len(content)), 0, 0
	return plan, err
}

// file plans the restoring of one lost file; its error is a refusal.
func (p *planner) file(i Instance, f File) (FilePlan, error) {
	plan, err := p.draft(i, f)
	if err != nil || plan.Content != "" {
		return plan, err
	}
	if err := p.place(&plan); err != nil {
		return plan, err
	}
	src, err := openHeld(f)
	if err != nil {
		return plan, err
	}
	defer src.File.Close()
	plan.Direct = src.Direct
	err = p.source(i, &plan, src)
	return plan, err
}

// place checks where the file is to go.
func (p *planner) place(f *FilePlan) error {
	st, err := p.root.Lstat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%s can't be published safely: %w", f.Path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%w: %s is no regular file (a symlink, a directory or a device): move it away after a look at who made it", ErrConflict, f.Path)
	}
	f.Occupied = true
	if p.options.ReplaceExisting {
		return nil
	}
	if st.Size != f.Size {
		return fmt.Errorf("%w: %s (inode %d, %s) is not the instance's own (deleted inode %d, %s): look at both, then either move it away or use --replace-existing",
			ErrConflict, f.Path, st.Ino, humanize.IBytes(uint64(st.Size)), f.Inode, humanize.IBytes(uint64(f.Size)))
	}
	return nil
}

// source checks the inode that is to be copied.
func (p *planner) source(i Instance, f *FilePlan, src copier.Source) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(src.File.Fd()), &st); err != nil {
		return err
	}
	f.UID, f.GID, f.Mode = st.Uid, st.Gid, FileMode(st.Mode&0o777)
	shared, err := copier.Shared(src.File)
	if err != nil {
		return err
	}
	if shared && !p.options.AcceptShared && p.cloud == nil {
		return errShared(f.Path)
	}
	if f.Format != "qcow2" || f.Size == 0 {
		return nil
	}
	header, err := qcow2.ParseHeader(qcow2.Aligned{File: src.File}, f.Size)
	if err != nil {
		return fmt.Errorf("libvirt calls %s a qcow2 image, but its header can't be read as one: %w", f.Path, err)
	}
	switch {
	case header.Snapshots > 0:
		f.unmirrorable = fmt.Sprintf("%s has %d snapshots inside, which a mirror does not keep", f.Path, header.Snapshots)
	case header.Bitmaps:
		f.unmirrorable = f.Path + " has dirty bitmaps inside (of incremental backups), which a mirror does not keep"
	}
	return checkHeader(i.domain, f.Path, header)
}

func errShared(path string) error {
	return fmt.Errorf("%w: %s is on a file system that other hosts may write, and without Nova nobody can say that the instance is not running on one of them by now: --accept-shared says that you know", ErrRefused, path)
}

// amount says how much of a file there is to copy.
func amount(f FilePlan) string {
	if f.Allocated >= f.Size {
		return humanize.IBytes(uint64(f.Size))
	}
	return humanize.IBytes(uint64(f.Allocated)) + " of " + humanize.IBytes(uint64(f.Size))
}

// steps says in words what a plan will do.
func (p *planner) steps(plan InstancePlan) (steps []string) {
	add := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	var written []FilePlan
	for _, f := range plan.Files {
		switch {
		case f.Writable || f.Role == RoleConsoleLog && plan.Action != ActionPutBack && plan.Action != ActionLive:
			written = append(written, f)
		case f.Content != "":
			add("make %s from the domain's definition", f.Path)
		default:
			while := ""
			if plan.Process.PID != 0 {
				while = " while the guest runs"
			}
			add("put back %s (%s)%s", f.Path, amount(f), while)
		}
	}
	if p.cloud != nil && plan.Server != nil {
		steps = append([]string{"lock it in Nova, so that its owner can't reboot or stop it meanwhile"}, steps...)
		defer func() { steps = append(steps, "unlock it") }()
	}
	if plan.Action == ActionLive {
		return append(steps, p.liveSteps(plan, written)...)
	}
	if plan.Action == ActionReboot {
		if plan.Found == StateRunning {
			add("copy its disks while it runs, where the file system can't clone them")
			add("freeze the guest's file systems, if its agent answers, and suspend it")
		} else {
			add("leave the guest paused as it was found")
		}
	}
	for _, f := range written {
		add("copy %s (%s), compare it in full", f.Path, amount(f))
	}
	if p.options.BackupDir != "" && len(written) > 0 {
		add("keep a copy of all files in %s", p.options.BackupDir)
	}
	if plan.Action == ActionReboot {
		add("destroy the domain")
	}
	if len(written) > 0 {
		add("publish the copies with their owners and modes")
	}
	switch {
	case plan.Action == ActionPutBack:
	case p.options.NoReboot:
		add("leave the domain off (--no-reboot)")
	case plan.Server != nil && p.cloud != nil && plan.Found == StateRunning:
		add("hard reboot it through Nova, wait until it is ACTIVE, and check that its QEMU has the published files open")
	case plan.Server != nil && p.cloud != nil && plan.Found == StatePaused:
		add("hard reboot it through Nova, check that its QEMU has the published files open, and pause it, as it was found")
	case plan.Found == StateRunning:
		add("start the domain and check that its QEMU has the published files open")
	case plan.Found == StatePaused:
		add("start the domain paused, as it was found, and check that its QEMU has the published files open")
	default:
		add("leave the domain off, as it was found")
	}
	return steps
}
