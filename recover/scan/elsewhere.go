package scan

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// deletedFiles returns the deleted files that any process of the host has open.
func deletedFiles(ctx context.Context, instancesPath string) ([]candidate, error) {
	pids, err := procfs.All(procfs.Dir)
	if err != nil {
		return nil, err
	}
	var found []candidate
	for _, pid := range pids {
		held, err := deletedBy(ctx, pid, instancesPath)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, procfs.ErrSilent) {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("what a process has open can't be looked at: its deleted files are not seen")
			continue
		}
		if err != nil {
			zerolog.Ctx(ctx).Trace().Err(err).Int("pid", pid).Msg("a process can't be looked at, or has ended")
			continue
		}
		for _, c := range candidates(held) {
			if c.gone() {
				c.elsewhere = true
				found = append(found, c)
			}
		}
	}
	return found, nil
}

func deletedBy(ctx context.Context, pid int, instancesPath string) ([]procfs.HeldFile, error) {
	p, err := procfs.Open(procfs.Dir, pid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.DeletedBy(ctx, instancesPath)
}

// heldByQEMU returns what the QEMU of a domain has open, and who it is. The error wraps
// procfs.ErrNotQEMU if the domain's process can't be found.
func heldByQEMU(ctx context.Context, d recover.Domain) ([]procfs.HeldFile, *procfs.Process, error) {
	if d.PID == 0 {
		return nil, nil, fmt.Errorf("%w: libvirt has no readable pid file for this active domain", procfs.ErrNotQEMU)
	}
	p, err := procfs.Open(procfs.Dir, d.PID)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", procfs.ErrNotQEMU, err)
	}
	if err = p.CheckQEMU(d.UUID); err == nil {
		var held []procfs.HeldFile
		if held, err = p.HeldBy(ctx); err == nil {
			return held, p, nil
		}
	}
	p.Close()
	return nil, nil, err
}

// namesakes returns the deleted files of any process of the host that may be f, of which
// nothing is known: before it is called lost, nobody may have it. Their names tell, and
// they prove nothing.
func namesakes(deletedFiles func() ([]candidate, error), f recover.File) ([]*openFile, error) {
	if verdict.KindOf(f.Role) != verdict.Essential {
		return nil, nil
	}
	deleted, err := deletedFiles()
	if err != nil {
		return nil, err
	}
	m := &matching{files: []recover.File{f}}
	return slices.DeleteFunc(openFiles(slices.Clone(deleted)), func(open *openFile) bool {
		return !m.isNamed(f, open)
	}), nil
}
