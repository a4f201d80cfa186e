package scan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/runs"
)

// look is one scan of a host. It reads once what is the same for every instance.
type look struct {
	settings  recover.Settings
	root      procfs.Root
	logs      *virtlogds
	pins      pinned
	named     []candidate                    // files of the processes that the operator named with --holder
	published func() (runs.Published, error) // reads the journals at its first call
	records   map[string]inventory.Record    // the guard's records of instances, by UUID
}

// look begins a scan of the host; the caller closes it. Errors are those of Host.
func (s *Scanner) look(ctx context.Context, holders []int) (*look, error) {
	r, err := procfs.OpenRoot(s.settings.Root)
	if err != nil {
		return nil, fmt.Errorf("%w: open the root %s: %w", recover.ErrUnusable, s.settings.Root, err)
	}
	l := &look{settings: s.settings, root: r, published: sync.OnceValues(s.runs.Published)}
	l.logs, err = findVirtlogds(ctx, procfs.Dir, s.settings.Root)
	if err == nil {
		l.pins, err = s.pins(ctx)
	}
	if err == nil {
		var unreadable error
		if l.records, unreadable = inventory.In(s.settings.StateDir).Records(); unreadable != nil {
			zerolog.Ctx(ctx).Warn().Err(unreadable).Msg("a record of the guard can't be used")
		}
		err = l.addHolders(ctx, holders)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// addHolders adds the files of the processes that the operator named.
func (l *look) addHolders(ctx context.Context, pids []int) error {
	for _, pid := range pids {
		held, err := procfs.HeldBy(ctx, pid)
		if err != nil {
			return fmt.Errorf("%w: --holder %d: %w", recover.ErrUsage, pid, err)
		}
		l.named = append(l.named, candidates(held)...)
	}
	return nil
}

// close ends the scan.
func (l *look) close() { l.root.Close() }

// instance scans one domain. An error stops the whole scan; trouble with this domain
// alone is reported in the result.
func (l *look) instance(ctx context.Context, d recover.Domain) (recover.Instance, error) {
	zerolog.Ctx(ctx).Debug().Str("domain", d.Name).Str("state", string(d.State)).Msg("scan")
	i := recover.Instance{
		UUID:       d.UUID,
		Domain:     d.Name,
		PID:        d.PID,
		State:      d.State,
		Losses:     d.Losses,
		Files:      expectedFiles(d, l.settings.InstancesPath),
		Definition: d,
	}
	if i.Files == nil {
		i.Files = []recover.File{}
	}
	if d.Nova != nil {
		i.Name, i.ProjectID, i.ProjectName = d.Nova.Name, d.Nova.ProjectID, d.Nova.ProjectName
	}
	own, tree, err := l.held(ctx, d, &i)
	if err != nil {
		if ctx.Err() != nil {
			return i, ctx.Err()
		}
		i.Verdict = recover.VerdictUnknown
		i.Reasons = append(i.Reasons, err.Error())
		if errors.Is(err, procfs.ErrNotQEMU) {
			i.Possible = append(i.Possible, "nothing was touched; restart libvirtd, which writes the pid file anew (its guests go on running), "+
				"then scan again")
		}
		return i, nil
	}
	defer tree.Close()
	held := append(candidates(own), l.pins.of(d.UUID)...)
	if r := l.records[d.UUID].Incident; r != nil {
		i.StateBefore = r.Found
	}
	if i.Process.PID == 0 {
		held = append(held, l.named...)
		i.Files = l.pins.files(d.UUID, i.Files)
		i.Files = append(cachedBases(ctx, l, d, i.Files), i.Files...)
	}

	others := map[string]bool{}
	for _, f := range i.Files {
		if f.Role != recover.RoleConsoleLog && f.Role != recover.RoleDiskInfo {
			others[f.Path] = true
		}
	}
	for n := range i.Files {
		f := &i.Files[n]
		f.Resolved = tree.Resolve(f.Path)
		if err := l.classify(ctx, f, held, tree, others, i.Process.PID != 0); err != nil {
			i.Verdict = recover.VerdictUnknown
			i.Reasons = append(i.Reasons, fmt.Sprintf("%s can't be looked at: %v", f.Path, err))
			return i, nil
		}
		if f.State == recover.FileReplaced {
			copies, err := l.published()
			if err != nil {
				return i, err
			}
			if st, err := tree.Stat(f.Path); err == nil && copies.Has(*f, st) {
				f.Proven = true
				f.Reason = "put back earlier with the same content; the old inode stays open until the next start"
			}
		}
	}
	rest := unnamed(i.Files, held)
	for _, f := range rest {
		if others[f.Path] {
			i.Nameless = append(i.Nameless, f) // one of several of that name
		} else {
			i.Files = append(i.Files, f)
		}
	}
	l.addGuarded(&i, tree)
	Judge(&i)
	return i, nil
}

// held returns the files that the domain's QEMU holds, and the root in which QEMU
// looks up its paths: for a domain that is off, no files and the host's root.
func (l *look) held(ctx context.Context, d recover.Domain, i *recover.Instance) ([]procfs.HeldFile, procfs.Root, error) {
	if d.State == recover.StateShutOff || d.State == recover.StateCrashed && d.PID == 0 {
		r, err := procfs.OpenRoot(l.settings.Root)
		return nil, r, err
	}
	if d.PID == 0 {
		return nil, procfs.Root{}, fmt.Errorf("%w: libvirt has no readable pid file for this active domain", procfs.ErrNotQEMU)
	}
	p, err := procfs.Open(procfs.Dir, d.PID)
	if err != nil {
		return nil, procfs.Root{}, fmt.Errorf("%w: %w", procfs.ErrNotQEMU, err)
	}
	defer p.Close()
	if err := p.CheckQEMU(d.UUID); err != nil {
		return nil, procfs.Root{}, err
	}
	i.Process = p.Identity
	held, err := p.HeldBy(ctx)
	if err != nil {
		return nil, procfs.Root{}, err
	}
	r, err := procfs.OpenRoot(p.Root())
	return held, r, err
}

// classify classifies a file of a domain. virtlogd usually holds the console logs. A
// log that seems to have no holder, although its guest runs or the log is deleted, may
// be held by a virtlogd that the pid file does not name.
func (l *look) classify(
	ctx context.Context, f *recover.File, held []candidate, tree procfs.Root, others map[string]bool, active bool,
) error {
	if f.Role != recover.RoleConsoleLog {
		return classify(f, held, tree, l.root, others)
	}
	err := classify(f, slices.Concat(held, candidates(l.logs.held)), tree, l.root, others)
	if err != nil || len(f.Holders) > 0 || f.State == recover.FilePresent && !active {
		return err
	}
	if more, err := l.logs.widen(ctx); err != nil || !more {
		return err
	}
	return classify(f, slices.Concat(held, candidates(l.logs.held)), tree, l.root, others)
}

// unnamed returns the deleted files that QEMU holds and no definition names, except
// for memory and temporary files, which never had a lasting name.
func unnamed(named []recover.File, held []candidate) []recover.File {
	known := map[recover.Inode]bool{}
	for _, f := range named {
		known[recover.Inode{Device: f.Device, Inode: f.Inode}] = true
	}
	var files []recover.File
	for _, h := range held {
		if !h.Unlinked() || h.pinPath != "" || known[h.Inode()] {
			continue
		}
		path := procfs.PathsOf(h.Link, true)[0]
		if strings.HasPrefix(path, "/memfd:") || strings.HasPrefix(path, "/dev/") || strings.HasPrefix(path, "/SYSV") ||
			strings.HasPrefix(path, "/anon_hugepage") || strings.HasPrefix(path, "/var/tmp/vl.") || strings.HasPrefix(path, "/tmp/vl.") {
			continue
		}
		known[h.Inode()] = true
		f := recover.File{
			Path:    path,
			Role:    recover.RoleOther,
			State:   recover.FileDeleted,
			Reason:  "no definition names it: it lasts as long as its QEMU runs, and os-rescue leaves it alone",
			Holders: []recover.Holder{},
		}
		addHolder(&f, h)
		files = append(files, f)
	}
	return files
}
