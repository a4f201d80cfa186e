package procfs

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// HeldFile is a descriptor together with the process that has it.
type HeldFile struct {
	Descriptor
	PID     int    // of the process
	Process string // its command name, which the kernel cuts to 15 characters
}

// Holder is the held file as a scan reports it.
func (h HeldFile) Holder() recover.Holder {
	return recover.Holder{PID: h.PID, FD: h.FD, Process: h.Process, Direct: h.Direct(), Writable: h.Writable()}
}

// Dir is where the kernel shows processes.
const Dir = "/proc"

// HeldBy returns the regular files that the process of that PID holds. The error wraps
// unix.ESRCH when there is no such process.
func HeldBy(ctx context.Context, pid int) ([]HeldFile, error) {
	p, err := Open(Dir, pid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.HeldBy(ctx)
}

// HeldBy returns the regular files that the process holds. The error wraps unix.ESRCH
// when it has ended.
func (p *Process) HeldBy(ctx context.Context) ([]HeldFile, error) {
	return p.held(ctx, &listing{p: p, asks: func(string) bool { return true }})
}

// DeletedBy is HeldBy for the files that the kernel calls deleted, that a network file system
// has renamed instead, and that are below dir, where another client may have deleted them: these
// alone are asked for at their server.
func (p *Process) DeletedBy(ctx context.Context, dir string) ([]HeldFile, error) {
	isBelow := func(link string) bool { return recover.IsBelow(link, dir) }
	return p.held(ctx, &listing{p: p, asks: isBelow, isMeant: func(link string) bool {
		d := Descriptor{Link: link}
		return strings.HasSuffix(link, DeletedSuffix) || d.SillyRenamed() || isBelow(link)
	}})
}

func (p *Process) held(ctx context.Context, l *listing) ([]HeldFile, error) {
	descriptors, err := l.list(ctx, silence)
	if err != nil {
		return nil, err
	}
	files := make([]HeldFile, 0, len(descriptors))
	for _, d := range descriptors {
		zerolog.Ctx(ctx).Trace().
			Int("pid", p.Identity.PID).
			Int("fd", d.FD).
			Str("link", d.Link).
			Uint64("links", uint64(d.Stat.Nlink)). //nolint:unconvert // 32 bits on arm64
			Msg("descriptor")
		files = append(files, HeldFile{Descriptor: d, PID: p.Identity.PID, Process: p.Command})
	}
	return files, nil
}

// Writers returns the regular files that processes have open for writing, without those of
// the process but, by their numbers alone (recover.Inode.Unborn): who asks holds the file that he asks for.
// No file's server is asked. proc is Dir. A process that ends meanwhile has nothing open.
func Writers(ctx context.Context, proc string, but int) (map[recover.Inode]bool, error) {
	written := map[recover.Inode]bool{}
	err := eachProcess(ctx, proc, func(p *Process, open []Descriptor) {
		for _, d := range open {
			if d.Writable() && p.Identity.PID != but {
				written[d.Inode().Unborn()] = true
			}
		}
	})
	return written, err
}

// Holders calls do for each of the files, which the caller holds, that a process has open, with that
// process, which is closed afterwards. No file's server is asked. proc is Dir.
func Holders(ctx context.Context, proc string, files map[recover.Inode]bool, do func(recover.Inode, *Process)) error {
	byNumber := map[recover.Inode]recover.Inode{}
	for file, wanted := range files {
		if wanted {
			byNumber[file.Unborn()] = file
		}
	}
	return eachProcess(ctx, proc, func(p *Process, open []Descriptor) {
		for _, d := range open {
			if file, ok := byNumber[d.Inode().Unborn()]; ok {
				do(file, p)
			}
		}
	})
}

func eachProcess(ctx context.Context, proc string, do func(*Process, []Descriptor)) error {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := Open(proc, pid)
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		l := listing{p: p}
		list, err := l.list(ctx, silence)
		if err == nil {
			do(p, list)
		}
		p.Close()
		if err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

// gone is true for the errors of a process that has ended.
func gone(err error) bool { return errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist) }

// StartedWithBlockdev is true when libvirt 6.0 or later started that QEMU with
// -blockdev, so that the target of a block job is a node of its own (needs QEMU 4.2;
// QEMU_CAPS_BLOCKDEV in libvirt's src/qemu/qemu_capabilities.c). The error wraps
// unix.ESRCH when there is no such process.
func StartedWithBlockdev(pid int) (bool, error) {
	p, err := Open(Dir, pid)
	if err != nil {
		return false, err
	}
	defer p.Close()
	args, err := p.Args()
	return slices.Contains(args, "-blockdev"), err
}
