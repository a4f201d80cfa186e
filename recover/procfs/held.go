package procfs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/rs/zerolog"

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
	descriptors, err := p.descriptors(ctx)
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

// StartedWithBlockdev is true when libvirt 6.0 or later started that QEMU with
// -blockdev, so that the target of a block job is a node of its own (needs QEMU 4.2;
// QEMU_CAPS_BLOCKDEV in libvirt's src/qemu/qemu_capabilities.c). The error wraps
// fs.ErrNotExist when there is no such process.
func StartedWithBlockdev(pid int) (bool, error) {
	args, err := os.ReadFile(filepath.Join(Dir, strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(bytes.Split(args, []byte{0}), func(arg []byte) bool { return string(arg) == "-blockdev" }), nil
}
