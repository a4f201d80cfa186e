package plan

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// liveRules decide which instances can be rescued live.
type liveRules struct {
	mirrors recover.Mirrors
	options recover.Options
	support *recover.MirrorSupport // nil until the hypervisor was asked
}

// whyNot says why an instance can't be rescued live, and what to do instead; empty
// when it can. The error is that of Mirrors.MirrorSupport or of reading /proc.
func (r *liveRules) whyNot(ctx context.Context, i recover.Instance, todo recover.InstancePlan) (string, error) {
	if r.support == nil {
		support, err := r.mirrors.MirrorSupport(ctx)
		if err != nil {
			return "", err
		}
		r.support = &support
	}
	if r.support.Missing != "" {
		return r.support.Missing + ": --mode reboot", nil
	}
	if todo.Verdict == recover.VerdictConflict && !r.options.ReplaceExisting {
		for _, f := range todo.Files {
			if f.Writable && f.Occupied {
				return fmt.Sprintf("another file stands at %s: look at it, then move it away or use --replace-existing; "+
					"--mode reboot compares the two first and keeps an identical one", f.Path), nil
			}
		}
	}
	if r.options.BackupDir != "" {
		return "--backup-dir needs the guest to be suspended while its files are copied: use --mode reboot, or os-rescue backup first", nil
	}
	blockdev, err := procfs.StartedWithBlockdev(i.PID)
	if err != nil {
		return fmt.Sprintf("its QEMU can't be looked at: %v", err), nil
	}
	if !blockdev {
		return "its QEMU was started by a libvirt before 6.0, which can't mirror onto a renamed file: --mode reboot", nil
	}
	for _, f := range todo.Files {
		if !f.Writable {
			continue
		}
		if f.Unmirrorable != "" {
			return f.Unmirrorable + ": --mode reboot keeps it as it is", nil
		}
		if why := unmirrored(i.Definition, f); why != "" {
			return why, nil
		}
	}
	return "", nil
}

// unmirrored says why a lost file can't be mirrored; empty when it can.
func unmirrored(d recover.Domain, f recover.FilePlan) string {
	if f.Role == recover.RoleNVRAM {
		return fmt.Sprintf("its UEFI variable store %s is lost, and no block job can mirror it: --mode reboot", f.Path)
	}
	disk, err := recover.DiskOf(d, f)
	switch {
	case disk.Encrypted:
		// virDomainBlockCopy encrypts its target only if its XML has an <encryption> with a secret (libvirt's qemuDomainBlockCopyCommon).
		return fmt.Sprintf("QEMU encrypts %s, and would write its mirror in the clear: --mode reboot keeps every byte of it", f.Path)
	case disk.Unmirrorable != "":
		return fmt.Sprintf("disk %s %s: --mode reboot", disk.Target, disk.Unmirrorable)
	case err != nil:
		return fmt.Sprintf("the guest writes %s, which is no disk of its definition: --mode reboot", f.Path)
	case f.Format != "qcow2" && f.Format != "raw":
		return fmt.Sprintf("%s is a %s image, and only qcow2 and raw are mirrored: --mode reboot", f.Path, f.Format)
	}
	return ""
}

// steps describes what a live rescue will do besides putting back read-only files.
func (r *liveRules) steps(todo recover.InstancePlan, written []recover.FilePlan) (steps []string) {
	add := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	for _, f := range written {
		loses := ""
		if f.MirrorLoses != "" {
			loses = "; the new image is without " + f.MirrorLoses + ", which the guest does not notice"
		}
		add("mirror %s (%s) while the guest runs%s", f.Path, amount(f), loses)
	}
	moment := "suspend the guest for a moment, check the new images"
	if todo.Found == recover.StatePaused {
		moment = "check the new images, with the guest left paused as it was found"
	}
	paths := make([]string, len(written))
	for n, f := range written {
		paths[n] = filepath.Base(f.Path)
	}
	proof, running := "", false
	switch r.options.Verify {
	case recover.VerifyFull:
		proof = ", compare them in full"
	case recover.VerifyStructure:
	default:
		running = r.support.Export && todo.Unexported == ""
		if !running {
			proof = fmt.Sprintf(", compare them in full if that takes no longer than %s", r.options.Live.LongestPause())
		}
		if todo.Unexported != "" {
			proof += fmt.Sprintf(" (not while it runs: %s, and QEMU may crash when it has shown such a disk)", todo.Unexported)
		}
		if !running && slices.ContainsFunc(written, func(f recover.FilePlan) bool { return f.Format != "qcow2" }) {
			proof += ", else leave it as it was found"
		}
	}
	add("%s%s, and move it onto them (%s) with their owners and modes", moment, proof, strings.Join(paths, ", "))
	if running {
		add("compare the new disks in full with the old ones while the guest runs")
	}
	return steps
}
