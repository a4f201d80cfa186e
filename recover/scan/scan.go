package scan

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/runs"
)

// Scanner looks at a host's domains and the files that they need, and finds the state
// of each file. It changes nothing. It is safe for concurrent use.
type Scanner struct {
	settings   recover.Settings
	hypervisor recover.Hypervisor
	pins       pinLister
	runs       runs.Runs
	thorough   bool // see Thorough
	keeps      func(recover.Inode) bool
	doubting   bool   // see Doubting
	twins      *twins // what was compared, by all scanners that were made from one
}

// pinLister lists what the keeper and the guard hold. The guard itself lists its own
// pins without asking over a socket.
type pinLister func(ctx context.Context) ([]pin.Held, error)

// New returns the scanner of the host that settings describe. It asks the hypervisor for
// domains and pins (pin.Lister) for what the keeper and the guard hold, each at every
// scan and not before.
func New(settings recover.Settings, hypervisor recover.Hypervisor, pins pinLister) *Scanner {
	return &Scanner{settings: settings, hypervisor: hypervisor, pins: pins, runs: runs.Of(settings.StateDir),
		twins: newTwins()}
}

// Keeping returns a scanner that is told which files this process has published and has had
// open ever since: no other file has their numbers.
func (s *Scanner) Keeping(keeps func(recover.Inode) bool) *Scanner {
	t := *s
	t.keeps = keeps
	return &t
}

// Doubting returns a scanner for which a file that a run has put back, and that was written since, is
// another file, whatever is in it: a run looks into it then, and replaces it where it may.
func (s *Scanner) Doubting() *Scanner {
	t := *s
	t.doubting = true
	return &t
}

// Host scans every domain of the host, and what the guard holds of instances that
// libvirt no longer knows. hints are the operator's: the files that the named processes
// hold count for domains that are off, and a mapping decides which open file of a QEMU is
// which. The instances are sorted by domain name.
//
// The error wraps ErrUnavailable when the hypervisor does not answer, ErrUnusable when
// the root can't be opened, fs.ErrPermission when /proc may not be read, and ErrUsage
// when a holder can't be examined. An instance that could not be examined is in the
// report with VerdictUnknown and its reasons.
func (s *Scanner) Host(ctx context.Context, hints recover.Hints) (recover.Report, error) {
	l, err := s.look(ctx, hints)
	if err != nil {
		return recover.Report{}, err
	}
	defer l.close()
	domains, err := s.hypervisor.Domains(ctx)
	if err != nil {
		return recover.Report{}, fmt.Errorf("list the domains: %w", err)
	}
	report := recover.Report{Host: s.settings.Host, Taken: time.Now().UTC(), Instances: []recover.Instance{}}
	if l.alone != nil {
		report.GuardFault = l.alone.fault.Error()
	}
	known := map[string]bool{}
	for _, d := range domains {
		i, err := l.instance(ctx, d)
		if err != nil {
			return recover.Report{}, err
		}
		known[d.UUID] = true
		report.Instances = append(report.Instances, i)
	}
	if err := s.lookAgain(ctx, l, report.Instances); err != nil {
		return recover.Report{}, err
	}
	guarded, err := l.inventoryOnly(ctx, known)
	if err != nil {
		return recover.Report{}, err
	}
	report.Instances = append(report.Instances, guarded...)
	explainLost(report.Instances)
	explainUnmounted(l.root, s.settings.InstancesPath, report.Instances)
	if report.Foreign, err = foreignFiles(ctx, l, report.Instances, ""); err != nil {
		return recover.Report{}, err
	}
	if report.ComputeID, err = s.computeID(); err != nil {
		return recover.Report{}, err
	}
	slices.SortFunc(report.Instances, func(a, b recover.Instance) int { return cmp.Compare(a.Domain, b.Domain) })
	return report, nil
}

// computeID looks at Nova's compute_id.
func (s *Scanner) computeID() (*recover.ComputeIDFault, error) {
	root, err := beneath.OpenRoot(s.settings.Root)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	defer root.Close()
	return inventory.In(s.settings.StateDir).ComputeIDFault(root, s.settings.ComputeIDPaths), nil
}

// startTime is how long a QEMU that has just been started may take to open its images.
const startTime = 300 * time.Millisecond

// lookAgain looks once more, a moment later, at the instances that could not be judged: a
// guest may have been starting, ending or losing a disk between what libvirt said of it and
// the look at its QEMU. Errors are those of Host.
func (s *Scanner) lookAgain(ctx context.Context, l *look, instances []recover.Instance) error {
	waited := false
	for n, i := range instances {
		if i.Verdict != recover.VerdictUnknown || i.State == recover.StateShutOff {
			continue
		}
		if !waited {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(startTime):
				waited = true
			}
		}
		d, err := s.hypervisor.Domain(ctx, i.UUID)
		if err != nil {
			continue // it is as it was found
		}
		if instances[n], err = l.instance(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// Domain scans one domain, which the hypervisor has just described. Errors are those of
// Host.
func (s *Scanner) Domain(ctx context.Context, d recover.Domain) (recover.Instance, error) {
	l, err := s.look(ctx, recover.Hints{})
	if err != nil {
		return recover.Instance{}, err
	}
	defer l.close()
	return l.instance(ctx, d)
}

// NovaOnly scans an instance that Nova has on this host but whose domain libvirt does
// not know: a hard reboot that failed has undefined it. Its files may be whole, and then it
// is intact, without a domain. hints and errors are those of Host.
func (s *Scanner) NovaOnly(ctx context.Context, server recover.Server, hints recover.Hints) (recover.Instance, error) {
	l, err := s.look(ctx, hints)
	if err != nil {
		return recover.Instance{}, err
	}
	defer l.close()
	return l.novaOnly(ctx, server)
}

// Undefined finds what the keeper, the guard and the operator's processes hold of the files
// of an instance that libvirt does not know, and of which a backup names the files. It
// returns those that somebody holds, and those of which nobody can say which open file they
// are (FileUnknown). hints and errors are those of Host.
func (s *Scanner) Undefined(ctx context.Context, uuid string, files []recover.File, hints recover.Hints) ([]recover.File, error) {
	l, err := s.look(ctx, hints)
	if err != nil {
		return nil, err
	}
	defer l.close()
	i := recover.Instance{UUID: uuid, State: recover.StateShutOff, Files: slices.Clone(files)}
	for n := range i.Files {
		i.Files[n].Holders = []recover.Holder{}
	}
	if err := l.files(ctx, &i, nil, l.root); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(i.Files, func(f recover.File) bool {
		return len(f.Holders) == 0 && f.State != recover.FileUnknown
	}), nil
}
