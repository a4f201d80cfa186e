package scan

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// foreignFiles returns the deleted files below the instances directory that are written by
// processes which are neither the QEMU of one of the instances, nor hold pins, nor were named
// by the operator: of all, or of one instance. A QEMU that was ended a moment ago lets its files go while
// they are looked for: each is looked at twice.
func foreignFiles(ctx context.Context, l *look, instances []recover.Instance, of string) ([]recover.Foreign, error) {
	deleted, err := l.deleted()
	if err != nil {
		return nil, err
	}
	isKnown := func(c candidate) bool {
		return slices.ContainsFunc(instances, func(i recover.Instance) bool { return i.PID == c.PID }) ||
			slices.ContainsFunc(l.pins, func(p pin.Held) bool { return p.PID == c.PID }) ||
			slices.ContainsFunc(l.named, func(n candidate) bool { return n.PID == c.PID })
	}
	var found []candidate
	for _, c := range deleted {
		if c.Writable() && !isKnown(c) && isOfInstance(c, l.settings.InstancesPath) && (of == "" || foreignOf(c).UUID == of) {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	recover.Pause(ctx, startTime)
	var still []recover.Foreign
	for _, c := range found {
		if c.isDeletedByNow() {
			still = append(still, foreignOf(c))
		}
	}
	return still, ctx.Err()
}

// isOfInstance is true for a file that was in an instance's directory, which has its UUID for a
// name. A console log is virtlogd's, which begins another one at every start.
func isOfInstance(c candidate, instancesPath string) bool {
	return slices.ContainsFunc(procfs.PathsOf(c.Link, c.Unlinked()), func(path string) bool {
		rest, below := strings.CutPrefix(path, strings.TrimSuffix(instancesPath, "/")+"/")
		dir, name, _ := strings.Cut(rest, "/")
		return below && uuid.Validate(dir) == nil && !strings.HasPrefix(filepath.Base(name), "console.log")
	})
}

func foreignOf(c candidate) recover.Foreign {
	path := procfs.PathsOf(c.Link, c.Unlinked())[0]
	f := recover.Foreign{
		Path:    path,
		PID:     c.PID,
		FD:      c.FD,
		Process: c.Process,
		Size:    c.Stat.Size,
		Device:  c.Inode().Device,
		Inode:   c.Inode().Inode,
		Birth:   c.Inode().Birth,
	}
	names := []string{filepath.Base(filepath.Dir(path))}
	if p, err := procfs.Open(procfs.Dir, c.PID); err == nil {
		names = append([]string{p.UUID()}, names...)
		p.Close()
	}
	for _, name := range names {
		if id, err := uuid.Parse(name); err == nil && f.UUID == "" {
			f.UUID = id.String()
		}
	}
	return f
}

// writtenUnknown takes into account a process which libvirt does not know, as a QEMU that it has lost, and
// which writes a deleted file of an instance that is off: whatever stands at the path, a start on it would
// be a second guest, on other data. i has its verdict.
func writtenUnknown(ctx context.Context, l *look, i *recover.Instance) error {
	settled := i.Verdict == recover.VerdictIntact || i.Verdict == recover.VerdictUnaffected || i.Verdict == recover.VerdictDisplaced
	if i.Process.PID != 0 || !settled {
		return nil
	}
	foreign, err := foreignFiles(ctx, l, []recover.Instance{*i}, i.UUID)
	if err != nil {
		return err
	}
	for _, f := range foreign {
		i.Verdict = recover.VerdictUnknown
		i.Reasons = append(i.Reasons, fmt.Sprintf("libvirt has it as off, and a process that libvirt does not know (%s, process %d) writes %s, "+
			"which was deleted", f.Process, f.PID, f.Path))
		i.Possible = append(i.Possible, fmt.Sprintf("do not start it, and do not end that process; a rescue takes what it holds, once it is "+
			"stopped: kill -STOP %d; os-rescue --instance %s --holder %d", f.PID, i.UUID, f.PID))
	}
	return nil
}
