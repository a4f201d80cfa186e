package scan

import (
	"context"
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
// by the operator. A QEMU that was ended a moment ago lets its files go while they are looked
// for: each is looked at twice.
func foreignFiles(ctx context.Context, l *look, instances []recover.Instance) ([]recover.Foreign, error) {
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
		if c.Writable() && !isKnown(c) && isOfInstance(c, l.settings.InstancesPath) {
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
