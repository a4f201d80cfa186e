package scan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// look is one scan of a host. It reads once what is the same for every instance.
type look struct {
	settings  recover.Settings
	root      procfs.Root
	home      lookup // root, to look up paths in
	logs      *virtlogds
	pins      pinned
	named     []candidate                    // files of the processes that the operator named with --holder
	mapped    []recover.Mapping              // which open file is which, as the operator says
	published func() (runs.Published, error) // reads the journals at its first call
	keeps     func(recover.Inode) bool       // see Scanner.Keeping; may be nil
	doubting  bool                           // see Scanner.Doubting
	alone     *guardAlone                    // nil for a guard that answers, or that does not run
	records   map[string]inventory.Record    // the guard's records of instances, by UUID
	thorough  *thorough                      // nil for a quick scan
	// inUse finds, at its first call, what the QEMUs of this host have open of the image
	// cache, by path.
	inUse func() (map[string][]candidate, error)
	// deleted finds, at its first call, the deleted files of every process of this host.
	deleted func() ([]candidate, error)
}

// look begins a scan of the host; the caller closes it. Errors are those of Host.
func (s *Scanner) look(ctx context.Context, hints recover.Hints) (*look, error) {
	r, err := procfs.OpenRoot(s.settings.Root)
	if err != nil {
		return nil, fmt.Errorf("%w: open the root %s: %w", recover.ErrUnusable, s.settings.Root, err)
	}
	l := &look{settings: s.settings, root: r, home: r, mapped: hints.Map, published: sync.OnceValues(s.runs.Published),
		keeps: s.keeps, doubting: s.doubting}
	l.inUse = sync.OnceValues(func() (map[string][]candidate, error) { return basesInUse(ctx, l, s.hypervisor) })
	l.deleted = sync.OnceValues(func() ([]candidate, error) { return deletedFiles(ctx, s.settings.InstancesPath) })
	var fault *pin.GuardFault
	l.logs, err = findVirtlogds(ctx, &virtlogds{proc: procfs.Dir, tree: r, instances: s.settings.InstancesPath},
		filepath.Join(s.settings.Root, pidFile))
	if err == nil {
		l.pins, err = s.pins(ctx)
		if errors.As(err, &fault) {
			err = nil
		}
	}
	if err == nil {
		var unreadable error
		if l.records, unreadable = inventory.In(s.settings.StateDir).Records(); unreadable != nil {
			zerolog.Ctx(ctx).Warn().Err(unreadable).Msg("a record of the guard can't be used")
		}
		if fault != nil {
			l.alone = newGuardAlone(fault, s.settings.StateDir, l.records)
		}
		err = l.addHolders(ctx, hints.Holders)
	}
	if err == nil && s.thorough {
		l.thorough, err = newThorough(ctx, s.settings, s.twins, l.published)
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
func (l *look) close() {
	l.root.Close()
	if l.thorough != nil {
		l.thorough.close()
	}
}

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
		Files:      ExpectedFiles(d, l.settings.InstancesPath),
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
	var doubts []string // why it can't be said that all of it is there
	if r := l.records[d.UUID].Incident; r != nil {
		i.StateBefore = r.Found
	}
	if i.Process.PID == 0 {
		i.Files = l.pins.files(d.UUID, i.Files)
		var bases []recover.File
		bases, doubts = cachedBases(ctx, l, d, i.Files)
		i.Files = append(bases, i.Files...)
	}
	if err := l.files(ctx, &i, candidates(own), tree); err != nil {
		if ctx.Err() != nil || errors.Is(err, errJournals) {
			return i, err
		}
		i.Verdict = recover.VerdictUnknown
		i.Reasons = append(i.Reasons, err.Error())
		return i, nil
	}
	later := startRoot{settings: l.settings, home: l.root, tree: tree}
	for n := range i.Files {
		f := &i.Files[n]
		same, err := l.root.SamePlace(tree, f.Path)
		f.OtherRoot = !same
		if err == nil && f.OtherRoot {
			f.Unseen, err = later.misses(*f)
		}
		if err != nil {
			i.Verdict = recover.VerdictUnknown
			i.Reasons = append(i.Reasons, fmt.Sprintf("%s can't be looked at: %v", f.Path, err))
			return i, nil
		}
	}
	l.addGuarded(&i, tree)
	if l.thorough != nil {
		if err := l.thorough.look(ctx, &i, tree); err != nil {
			return i, err
		}
	}
	i.NextStart = nextStart(i, l.settings.InstancesPath, later)
	verdict.Instance(&i)
	if i.Verdict == recover.VerdictIntact && len(doubts) > 0 {
		i.Verdict = recover.VerdictUnknown
		i.Reasons = append(i.Reasons, doubts...)
		i.Possible = append(i.Possible, "look at what is named (qemu-img info --backing-chain), before it is started")
	}
	if i.Verdict == recover.VerdictIntact && d.SavedUnread != "" {
		i.Verdict = recover.VerdictUnknown
		i.Reasons = append(i.Reasons, fmt.Sprintf("its memory is saved (virsh managedsave), and that image can't be read, so what a start "+
			"would open is not known: %s", d.SavedUnread))
		i.Possible = append(i.Possible, fmt.Sprintf("its files are in place: virsh managedsave-remove %s discards the guest's memory for good, "+
			"and it boots from its definition", d.Name))
	}
	if err := withhold(l, &i, candidates(own), tree); err != nil {
		return i, err
	}
	if err := writtenUnknown(ctx, l, &i); err != nil {
		return i, err
	}
	if i.Misplaced = misplaced(i, l.settings); i.Misplaced != "" && i.Verdict != recover.VerdictUnaffected {
		i.Reasons = append(i.Reasons, i.Misplaced)
	}
	return i, nil
}

// errJournals: the journals, which tell what was put back, can't be read.
var errJournals = errors.New("the journals can't be read")

// files finds out where each file of a domain stands. own is what its QEMU has open.
func (l *look) files(ctx context.Context, i *recover.Instance, own []candidate, tree lookup) error {
	pins := l.pins.of(i.UUID)
	c := l.classifier(tree, *i, slices.Concat(own, pins))
	places := map[string]identity.Status{}
	for n := range i.Files {
		f := &i.Files[n]
		f.Resolved = tree.Resolve(f.Path)
		st, err := tree.Stat(f.Path)
		if err == nil {
			places[f.Path] = st
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s can't be looked at: %w", f.Path, err)
		}
	}
	images := openFiles(withoutMemory(i.Definition, own, places))
	told, err := l.told(*i, images)
	if err != nil {
		return err
	}
	c.places = places
	m := match(i.Files, images, told, places, knownInodes(pins))
	switch {
	case c.active:
		c.inside = func(f recover.File, found finding) (flaw, error) {
			return flawRunning(i.Definition, m, tree, f, found), nil
		}
	case len(i.Definition.Disks) > 0:
		c.inside = func(f recover.File, found finding) (flaw, error) { return flawOff(l.root, f, found) }
	}
	for n := range i.Files {
		f := &i.Files[n]
		at, exists := places[f.Path]
		here := at.Inode()
		var err error
		switch {
		case f.Role == recover.RoleDiskInfo:
			err = c.classify(f, verdict.Nobody, nil, nil)
		case f.Role == recover.RoleConsoleLog:
			err = l.classifyLog(ctx, c, f, m.dirsOf(filepath.Dir(f.Path)), own, pins, here, exists)
		case !c.active:
			of, unsure := heldOff(*f, slices.Concat(pins, l.named), here, exists)
			if of == nil && len(unsure) == 0 && isCachedBase(*f, l.settings.InstancesPath) {
				if of, unsure, err = heldByOthers(l, *f, here, exists); err != nil {
					return err
				}
			}
			if of == nil && len(unsure) == 0 && !exists {
				if unsure, err = namesakes(l.deleted, *f); err != nil {
					return err
				}
			}
			err = c.classify(f, holderOf(verdict.Pin, of, unsure), of, unsure)
		default:
			of, unsure := m.of[f.Path], m.unsure[f.Path]
			if of == nil && len(unsure) == 0 {
				unsure = pinnedOnly(*f, pins)
			}
			if of == nil && len(unsure) == 0 && !exists {
				if unsure, err = namesakes(l.deleted, *f); err != nil {
					return err
				}
			}
			err = c.classify(f, holderOf(verdict.Own, of, unsure), of.with(pins), unsure)
		}
		if err != nil && !errors.Is(err, errJournals) {
			return fmt.Errorf("%s can't be looked at: %w", f.Path, err)
		}
		if err != nil {
			return err
		}
		loseStale(f)
	}
	l.addUnclaimed(i, m)
	i.Superseded, err = superseded(l, *i, own)
	return err
}

// told returns which open files the operator named, by path.
func (l *look) told(i recover.Instance, open []*openFile) (map[string]*openFile, error) {
	told := map[string]*openFile{}
	for _, m := range l.mapped {
		if m.PID != i.Process.PID {
			continue
		}
		n := slices.IndexFunc(i.Files, func(f recover.File) bool { return f.Path == m.Path })
		at := slices.IndexFunc(open, func(o *openFile) bool {
			return slices.ContainsFunc(o.fds, func(c candidate) bool { return c.FD == m.FD })
		})
		switch {
		case n < 0:
			return nil, fmt.Errorf("--map names %s, which is no file of its definition", m.Path)
		case at < 0:
			return nil, fmt.Errorf("--map names descriptor %d of its QEMU, which is no image", m.FD)
		case i.Files[n].Writable && !open[at].writable():
			return nil, fmt.Errorf("--map says that %s is descriptor %d, but its QEMU can't write that one", m.Path, m.FD)
		}
		told[m.Path] = open[at]
	}
	return told, nil
}

// pinnedOnly returns what the keeper and the guard hold of a file that its QEMU does not
// have open: nobody can say then that it is lost.
func pinnedOnly(f recover.File, pins []candidate) []*openFile {
	return openFiles(slices.DeleteFunc(slices.Clone(pins), func(c candidate) bool { return c.pinPath != f.Path || !c.gone() }))
}

// holderOf says who holds a file that may have one open file, or several candidates.
func holderOf(who verdict.Holder, of *openFile, unsure []*openFile) verdict.Holder {
	switch {
	case of != nil:
		return who
	case len(unsure) > 0:
		return verdict.Ambiguous
	}
	return verdict.Nobody
}

// addUnclaimed adds the deleted files that QEMU has open and that are none of the
// definition's. Those that could be one of them are only named in its reason.
func (l *look) addUnclaimed(i *recover.Instance, m *matching) {
	for _, o := range m.unclaimed() {
		if !o.first().gone() {
			continue
		}
		f := o.file()
		if slices.ContainsFunc(i.Files, func(other recover.File) bool { return other.Path == f.Path }) {
			i.Nameless = append(i.Nameless, f)
			continue
		}
		i.Files = append(i.Files, f)
	}
}

// classifier returns what classifies the files of a domain. held are those that processes
// are known to have open for it.
func (l *look) classifier(tree lookup, i recover.Instance, held []candidate) *classifier {
	return &classifier{
		tree: tree, home: l.home, active: i.Process.PID != 0,
		isCopy: func(f recover.File, at identity.Status) (bool, error) {
			copies, err := l.published()
			if err != nil {
				return false, fmt.Errorf("%w: %w", errJournals, err)
			}
			isKept := l.keeps != nil && l.keeps(at.Inode())
			isHeld := isKept || slices.ContainsFunc(held, func(h candidate) bool { return h.Inode() == at.Inode() })
			return copies.Has(f, at, isHeld) && (isKept || !l.doubting || copies.IsUnwritten(f, at, isHeld)), nil
		},
		instead: func(f recover.File) []string { return instead(l, i, f) },
		trusted: func(path string) bool { return !recover.IsBelow(path, l.settings.InstancesPath) },
	}
}

// knownInodes returns the inodes that the guard saw at their paths, by path, where it is
// sure: a path of which it holds two is not known.
func knownInodes(pins []candidate) map[string]recover.Inode {
	known := map[string]recover.Inode{}
	twice := map[string]bool{}
	for _, p := range pins {
		if at, ok := known[p.pinPath]; ok && at != p.Inode() {
			twice[p.pinPath] = true
		}
		known[p.pinPath] = p.Inode()
	}
	for path := range twice {
		delete(known, path)
	}
	return known
}

// with returns the open file with the pins of the same inode as more holders.
func (o *openFile) with(pins []candidate) *openFile {
	if o == nil {
		return nil
	}
	all := &openFile{inode: o.inode, fds: slices.Clone(o.fds)}
	for _, p := range pins {
		if p.Inode() == o.inode {
			all.fds = append(all.fds, p)
		}
	}
	return all
}

// held returns the files that the domain's QEMU holds, and the root in which QEMU
// looks up its paths: for a domain that is off, no files and the host's root.
func (l *look) held(ctx context.Context, d recover.Domain, i *recover.Instance) ([]procfs.HeldFile, procfs.Root, error) {
	if d.State == recover.StateShutOff || d.State == recover.StateCrashed && d.PID == 0 {
		r, err := procfs.OpenRoot(l.settings.Root)
		return nil, r, err
	}
	held, p, err := heldByQEMU(ctx, d)
	if err != nil {
		return nil, procfs.Root{}, err
	}
	defer p.Close()
	i.Process = p.Identity
	r, err := procfs.OpenRoot(p.Root())
	return held, r, err
}

// classifyLog classifies a console log. virtlogd usually holds it. A log that seems to have
// no holder, although its guest runs or the log is deleted, may be held by a virtlogd that
// the pid file does not name. dirs are where its directory may be now.
func (l *look) classifyLog(
	ctx context.Context, c *classifier, f *recover.File, dirs []string, own, pins []candidate, here recover.Inode, exists bool,
) error {
	of := l.logOf(*f, dirs, own, here, exists)
	if of == nil && (c.active || !exists) {
		more, err := l.logs.widen(ctx)
		if err != nil {
			return err
		}
		if more {
			of = l.logOf(*f, dirs, own, here, exists)
		}
	}
	if of != nil {
		return c.classify(f, verdict.Own, of.with(pins), nil)
	}
	of, unsure := heldOff(*f, pins, here, exists)
	err := c.classify(f, holderOf(verdict.Pin, of, unsure), of, unsure)
	if why := l.logs.explain(); why != "" && of == nil && (c.active || !exists) {
		f.Reason = strings.TrimPrefix(f.Reason+"; "+why, "; ")
	}
	return err
}

// logOf returns the open console log of that path; of several the one that stands there, then
// one of that name, then one that was moved with its directory.
func (l *look) logOf(f recover.File, dirs []string, own []candidate, here recover.Inode, exists bool) *openFile {
	m := &matching{files: []recover.File{f}}
	var named, moved *openFile
	for _, o := range openFiles(slices.Concat(own, candidates(l.logs.held))) {
		if exists && o.inode == here {
			return o
		}
		silly := o.first().SillyRenamed() && filepath.Dir(o.first().Link) == filepath.Dir(f.Path) && o.first().Process == procfs.Virtlogd
		if m.isNamed(f, o) || isTail(f, o) || silly {
			named = o
		}
		isBeside := func(name string) bool {
			return filepath.Base(name) == filepath.Base(f.Path) && slices.Contains(dirs, filepath.Dir(name))
		}
		if isNamesake(f, o) || slices.ContainsFunc(o.names(), isBeside) {
			moved = o
		}
	}
	if named == nil {
		return moved
	}
	return named
}
