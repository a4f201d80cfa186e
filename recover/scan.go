package recover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// procDir is where the kernel shows processes.
const procDir = "/proc"

// Scan looks at every domain of the host and at the files it needs, and says
// where each of them stands. It changes nothing and reads no image.
//
// The error wraps ErrUnavailable when the hypervisor does not answer and
// fs.ErrPermission when /proc may not be read. What could not be found out about
// one instance is said in that instance, with VerdictUnknown.
func (e *Engine) Scan(ctx context.Context) (Report, error) { return e.scan(ctx, nil) }

// scan is Scan that takes what the processes of these pids hold for the files of
// domains that are off.
func (e *Engine) scan(ctx context.Context, holders []int) (Report, error) {
	s, err := e.newScanner(ctx)
	if err != nil {
		return Report{}, err
	}
	defer s.Close()
	if err := s.hear(ctx, holders); err != nil {
		return Report{}, err
	}
	domains, err := e.Hypervisor.Domains(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("list the domains: %w", err)
	}
	report := Report{Host: e.Settings.Host, Taken: time.Now().UTC(), Instances: []Instance{}}
	known := map[string]bool{}
	for _, d := range domains {
		i, err := s.instance(ctx, d)
		if err != nil {
			return Report{}, err
		}
		known[d.UUID] = true
		report.Instances = append(report.Instances, i)
	}
	remembered, err := s.remembered(ctx, known)
	if err != nil {
		return Report{}, err
	}
	report.Instances = append(report.Instances, remembered...)
	explainLost(report.Instances)
	slices.SortFunc(report.Instances, func(a, b Instance) int { return cmp.Compare(a.Domain, b.Domain) })
	return report, nil
}

// scanInstance scans one domain alone.
func (e *Engine) scanInstance(ctx context.Context, d Domain) (Instance, error) {
	s, err := e.newScanner(ctx)
	if err != nil {
		return Instance{}, err
	}
	defer s.Close()
	return s.instance(ctx, d)
}

// scanner is one look at the host: what is the same for every instance is read once.
type scanner struct {
	settings Settings
	root     root
	logs     *logDaemons
	pins     []heldPin                   // what the keeper and a guard hold
	named    []heldFile                  // what the processes hold that an operator named as holders
	proven   func() (provenFiles, error) // reads the journals, at the first call
	records  map[string]guardRecord      // what the guard knows of instances, by UUID
}

func (e *Engine) newScanner(ctx context.Context) (*scanner, error) {
	r, err := openRoot(e.Settings.Root)
	if err != nil {
		return nil, fmt.Errorf("%w: open the root %s: %w", ErrUnusable, e.Settings.Root, err)
	}
	s := &scanner{settings: e.Settings, root: r, proven: sync.OnceValues(e.provenFiles)}
	s.logs, err = findLogDaemons(ctx, procDir, e.Settings.Root)
	if err == nil {
		s.pins, err = e.pins(ctx)
	}
	if err == nil {
		var unreadable error
		if s.records, unreadable = guardDirIn(e.Settings.StateDir).records(); unreadable != nil {
			zerolog.Ctx(ctx).Warn().Err(unreadable).Msg("a record of the guard can't be used")
		}
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// hear takes in what the processes hold that an operator named.
func (s *scanner) hear(ctx context.Context, holders []int) error {
	for _, pid := range holders {
		held, err := heldBy(ctx, pid)
		if err != nil {
			return fmt.Errorf("%w: --holder %d: %w", ErrUsage, pid, err)
		}
		s.named = append(s.named, held...)
	}
	return nil
}

// Close ends the look.
func (s *scanner) Close() { s.root.Close() }

// heldBy returns the regular files that a process holds.
func heldBy(ctx context.Context, pid int) ([]heldFile, error) {
	p, err := openProcess(procDir, pid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return heldByProcess(ctx, p)
}

func heldByProcess(ctx context.Context, p *process) ([]heldFile, error) {
	descriptors, err := p.Descriptors(ctx)
	if err != nil {
		return nil, err
	}
	held := make([]heldFile, 0, len(descriptors))
	for _, d := range descriptors {
		zerolog.Ctx(ctx).Trace().Int("pid", p.Identity.PID).Int("fd", d.FD).Str("link", d.Link).Uint64("links", uint64(d.Stat.Nlink)).Msg("descriptor") //nolint:unconvert // 32 bits on arm64
		held = append(held, heldFile{descriptor: d, PID: p.Identity.PID, Process: p.Command})
	}
	return held, nil
}

// instance scans one domain. Its error is for what stops the whole scan;
// whatever concerns this domain alone is in the result.
func (s *scanner) instance(ctx context.Context, d Domain) (Instance, error) {
	zerolog.Ctx(ctx).Debug().Str("domain", d.Name).Str("state", string(d.State)).Msg("scan")
	i := Instance{UUID: d.UUID, Domain: d.Name, PID: d.PID, State: d.State, Losses: d.Losses, Files: expectedFiles(d, s.settings.InstancesPath), domain: d}
	if i.Files == nil {
		i.Files = []File{}
	}
	if d.Nova != nil {
		i.Name, i.ProjectID, i.ProjectName = d.Nova.Name, d.Nova.ProjectID, d.Nova.ProjectName
	}
	held, tree, err := s.held(ctx, d, &i)
	if err != nil {
		if ctx.Err() != nil {
			return i, ctx.Err()
		}
		i.Verdict = VerdictUnknown
		i.Reasons = append(i.Reasons, err.Error())
		if errors.Is(err, errNotQEMU) {
			i.Possible = append(i.Possible, "nothing was touched; restart libvirtd (its guests go on running), which writes the pid file anew, and scan again")
		}
		return i, nil
	}
	defer tree.Close()
	held = append(held, s.pinsOf(d.UUID)...)
	if r := s.records[d.UUID].Incident; r != nil {
		i.before = r.Found
	}
	if i.process.PID == 0 {
		held = append(held, s.named...)
		i.Files = s.pinnedFiles(d.UUID, i.Files)
		i.Files = append(s.cachedBases(ctx, d, i.Files), i.Files...)
	}

	others := map[string]bool{}
	for _, f := range i.Files {
		if f.Role != RoleConsoleLog && f.Role != RoleDiskInfo {
			others[f.Path] = true
		}
	}
	for n := range i.Files {
		f := &i.Files[n]
		f.resolved = tree.Resolve(f.Path)
		if err := s.classify(ctx, f, held, tree, others, i.process.PID != 0); err != nil {
			i.Verdict = VerdictUnknown
			i.Reasons = append(i.Reasons, fmt.Sprintf("%s can't be looked at: %v", f.Path, err))
			return i, nil
		}
		if f.State == FileReplaced {
			proven, err := s.proven()
			if err != nil {
				return i, err
			}
			if st, err := tree.Stat(f.Path); err == nil && proven.has(*f, st) {
				f.Proven = true
				f.Reason = "put back earlier with the same content; the old inode stays open until the next start"
			}
		}
	}
	rest := unnamed(i.Files, held)
	for _, f := range rest {
		if others[f.Path] {
			i.nameless = append(i.nameless, f) // one of several of that name
		} else {
			i.Files = append(i.Files, f)
		}
	}
	s.addGuarded(&i, tree)
	judge(&i)
	return i, nil
}

// held returns what the domain's QEMU holds, and the root through which it sees
// its paths; for a domain that is off that is nothing, and the host's root.
func (s *scanner) held(ctx context.Context, d Domain, i *Instance) ([]heldFile, root, error) {
	if d.State == StateShutOff || d.State == StateCrashed && d.PID == 0 {
		r, err := openRoot(s.settings.Root)
		return nil, r, err
	}
	if d.PID == 0 {
		return nil, root{}, fmt.Errorf("%w: libvirt has no readable pid file for this active domain", errNotQEMU)
	}
	p, err := openProcess(procDir, d.PID)
	if err != nil {
		return nil, root{}, fmt.Errorf("%w: %w", errNotQEMU, err)
	}
	defer p.Close()
	if err := p.checkQEMU(d.UUID); err != nil {
		return nil, root{}, err
	}
	i.process = p.Identity
	held, err := heldByProcess(ctx, p)
	if err != nil {
		return nil, root{}, err
	}
	r, err := openRoot(p.Root())
	return held, r, err
}

// unnamed returns the deleted files that QEMU holds and no definition names.
// Memory and temporary files have no name to go back to.
func unnamed(named []File, held []heldFile) []File {
	known := map[inode]bool{}
	for _, f := range named {
		known[inode{f.Device, f.Inode}] = true
	}
	var files []File
	for _, h := range held {
		if !h.unlinked() || h.PinPath != "" || known[h.inode()] {
			continue
		}
		path := heldPaths(h.Link, true)[0]
		if strings.HasPrefix(path, "/memfd:") || strings.HasPrefix(path, "/dev/") || strings.HasPrefix(path, "/SYSV") ||
			strings.HasPrefix(path, "/anon_hugepage") || strings.HasPrefix(path, "/var/tmp/vl.") || strings.HasPrefix(path, "/tmp/vl.") {
			continue
		}
		known[h.inode()] = true
		f := File{Path: path, Role: RoleOther, State: FileDeleted, Holders: []Holder{},
			Reason: "no definition names it: it is held as long as its QEMU lives, and left alone"}
		f.hold(h)
		files = append(files, f)
	}
	return files
}
