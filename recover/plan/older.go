package plan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// notOlder returns ErrOlder when the guest has written since the backup was taken, or when
// nobody can tell. What is still held of a file that the guest writes decides: the run
// compares it with the backup in full before it goes on, and the plan notes what it is. Write
// counters can only show earlier that the guest has written.
func (p restorePlans) notOlder(ctx context.Context, entry manifest.Instance, i recover.Instance, todo *recover.InstancePlan) error {
	if p.Options.AcceptOlder || !recover.AnyWritable(todo.Files) {
		return nil
	}
	taken := entry.Taken.Local().Format(time.DateTime)
	if i.PID != 0 && i.Process == entry.Snapshot.Process {
		counters, err := p.Hypervisor.Counters(ctx, i.UUID)
		if err != nil {
			return err
		}
		if !entry.Snapshot.Unchanged(recover.Snapshot{Process: i.Process, Counters: counters}) {
			return fmt.Errorf("%w: the guest has written since the backup of %s, and its QEMU, process %d, holds what it has now: "+
				"os-rescue --instance %s brings that back and loses nothing; --accept-older restores the backup as it is",
				recover.ErrOlder, taken, i.PID, i.UUID)
		}
		todo.Restored = &entry.Snapshot
	}
	var unheld []string
	for n := range todo.Files {
		f := &todo.Files[n]
		if !f.Writable {
			continue
		}
		err := noteHeld(i, f)
		if errors.Is(err, fs.ErrNotExist) {
			unheld = append(unheld, f.Path)
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: what is still held of %s can't be compared with the backup of %s: %w; "+
				"--accept-older restores the backup as it is", recover.ErrOlder, f.Path, taken, err)
		}
	}
	if len(unheld) == 0 {
		return nil
	}
	boot, err := procfs.BootID(procfs.Dir)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: no process that os-rescue knows of holds %s any more, so nothing can be compared with the backup of %s; %s. "+
		"If a process still has it open (lsof +L1 | grep %s), name it with --holder PID; --accept-older restores the backup as it is",
		recover.ErrOlder, strings.Join(unheld, ", "), taken, sinceBackup(entry, i, boot), i.UUID)
}

// noteHeld notes in a planned file which inode is still held of it. fs.ErrNotExist when
// nobody holds one.
func noteHeld(i recover.Instance, f *recover.FilePlan) error {
	n := slices.IndexFunc(i.Files, func(file recover.File) bool { return file.Path == f.Path })
	if n < 0 {
		return fs.ErrNotExist
	}
	held := i.Files[n]
	if held.Unusable() {
		return fs.ErrNotExist
	}
	if held.State == recover.FileUnknown {
		return errors.New(held.Reason)
	}
	if len(held.Holders) == 0 {
		return fs.ErrNotExist
	}
	src, err := pin.Open(held)
	if err != nil {
		return fmt.Errorf("%w: %v", recover.ErrUnproven, err) //nolint:errorlint // it is held: not fs.ErrNotExist
	}
	defer src.File.Close()
	f.Held, f.HeldDirect = held.Identity().Key(), src.Direct
	return nil
}

// sinceBackup says what is known of an instance between its backup and now, where nobody
// holds its files any more. boot is the host's boot ID.
func sinceBackup(entry manifest.Instance, i recover.Instance, boot string) string {
	then := entry.Snapshot.Process
	var parts []string
	switch entry.Left {
	case recover.StateRunning:
		parts = append(parts, "its guest went on running after the backup, and what it wrote then is not in it")
	case recover.StatePaused:
		parts = append(parts, "its guest was left paused after the backup, and nothing tells whether somebody resumed it before it ended")
	default:
		parts = append(parts, "its domain was off when the backup was taken, and nothing tells whether it was started since")
	}
	if written := written(entry.Snapshot); written != "" {
		parts = append(parts, written)
	}
	switch {
	case i.PID != 0 && i.Process != then:
		parts = append(parts, fmt.Sprintf("it was started again since: its QEMU is process %d now", i.PID))
	case then.BootID != "" && then.BootID != boot, then.PID == 0 && entry.BootID != "" && entry.BootID != boot:
		parts = append(parts, "this host was booted since")
	case then.PID != 0:
		parts = append(parts, fmt.Sprintf("the QEMU of that time, process %d, has ended", then.PID))
		if now, err := procfs.Identify(procfs.Dir, then.PID); err == nil && now == then {
			parts[len(parts)-1] = fmt.Sprintf("the QEMU of that time, process %d, still runs, although libvirt does not say so", then.PID)
		}
	}
	return strings.Join(parts, "; ")
}

// written says how much a guest had written when its backup was taken; empty when that is
// not known.
func written(s recover.Snapshot) string {
	if s.Counters == nil {
		return ""
	}
	var n int64
	for _, c := range s.Counters {
		n += c.WriteBytes
	}
	return fmt.Sprintf("by the backup it had written %s since its start", humanize.IBytes(uint64(max(0, n))))
}
