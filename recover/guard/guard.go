package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/scan"
	"github.com/os-rescue/os-rescue/recover/statedir"
	"github.com/os-rescue/os-rescue/recover/treewatch"
)

// Deps are what a guard works with.
type Deps struct {
	Settings   recover.Settings   // of this host
	Hypervisor recover.Hypervisor // this host's
	// FindRoot, if not nil, is called before each scan: what Settings.Root leads to may be
	// another directory after it, when libvirt's container was restarted.
	FindRoot func(context.Context) error
	// Settle is how long a file must have been deleted before it is let go, and how
	// long the domain of a stopped instance may take to follow its files, when Nova
	// can't be asked; 0 is 5 s. Nova deletes the files of an instance first, and
	// undefines its domain then (nova/virt/libvirt/driver.py, _cleanup).
	Settle time.Duration
}

const (
	defaultSettle = 5 * time.Second
	// undecidedTime is the interval of full scans while a deleted file waits for a
	// decision, for as long as maxUndecided after its deletion.
	undecidedTime = time.Second
	maxUndecided  = time.Minute
	// longestRest is how long a full scan waits after the last one: no longer than that took.
	longestRest = time.Second
)

// Guard holds every file of the host's instances open, so that no inode is lost if files
// are deleted and instances rebooted or stopped; it notices deletions, and lets files go
// that nobody needs any more. It works while Run runs. Its methods are safe for concurrent
// use: its parts, which are called from its loops and from the clients of its socket, have
// a lock each.
type Guard struct {
	settings recover.Settings
	root     *beneath.Root
	findRoot func(context.Context) error // may be nil
	watch    *treewatch.Watcher
	started  time.Time
	options  atomic.Pointer[Options]
	scanDue  trigger // a full scan is due

	problems  *problems
	holds     *holdings
	copies    *comparer
	twins     *twins
	memory    *memory
	records   *records
	last      *lastScan
	incidents *incidents
	nova      *novaSide
	locks     *locker
	stale     *staleDomains
	tree      *treeScan
	poll      *linkPoll
	full      *fullScan
}

// New makes the guard of a host. shelf is nil where there is none. inherited are the
// descriptors that an earlier guard had put there, each called by its name on the shelf:
// the guard takes them over.
//
// recover.ErrUnusable when the state directory or the root can't be used.
func New(deps Deps, o Options, shelf Shelf, inherited []*os.File) (*Guard, error) {
	deps.Settle = cmp.Or(deps.Settle, defaultSettle)
	if err := statedir.Dir(deps.Settings.StateDir).Make(); err != nil {
		return nil, err
	}
	dir := inventory.In(deps.Settings.StateDir)
	if err := dir.Create(); err != nil {
		return nil, err
	}
	root, err := beneath.OpenRoot(deps.Settings.Root)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	watch, err := treewatch.New()
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("%w: %w", recover.ErrUnusable, err)
	}
	g := &Guard{
		settings: deps.Settings,
		root:     root,
		findRoot: deps.FindRoot,
		watch:    watch,
		started:  time.Now().UTC(),
		scanDue:  newTrigger(),
		problems: newProblems(),
		memory:   newMemory(dir),
		records:  newRecords(dir),
		last:     &lastScan{},
		stale:    newStaleDomains(),
	}
	g.connectParts(deps, shelf)
	g.configure(o)
	g.remember(inherited)
	return g, nil
}

// connectParts makes those parts of the guard that use other parts.
func (g *Guard) connectParts(deps Deps, shelf Shelf) {
	settings := deps.Settings
	lockDue := newTrigger()
	g.holds = newHoldings(shelf, g.scanDue.fire)
	g.twins = &twins{settings: settings, holds: g.holds, problems: g.problems, due: newTrigger()}
	g.holds.onTwins = g.twins.due.fire
	g.copies = newComparer(g.holds, g.root, g.scanDue.fire)
	g.nova = &novaSide{host: settings.Host, problems: g.problems}
	g.incidents = newIncidents(g.holds, g.records, g.last, g.problems, lockDue.fire)
	g.locks = &locker{
		nova:      g.nova,
		incidents: g.incidents,
		records:   g.records,
		problems:  g.problems,
		isWanted:  func() bool { return g.wishes().Lock },
		due:       lockDue,
	}
	g.tree = &treeScan{
		root:      g.root,
		path:      settings.InstancesPath,
		watch:     g.watch,
		holds:     g.holds,
		holdable:  newHoldable(g.root, settings.InstancesPath, g.problems),
		records:   g.records,
		incidents: g.incidents,
		last:      g.last,
		problems:  g.problems,
		save:      g.save,
		onChange:  g.scanDue.fire,
	}
	onHeld := func(ctx context.Context) {
		g.tree.notice(ctx)
		g.scanDue.fire() // which walks through the tree: nothing that is polled waits for that
	}
	g.poll = &linkPoll{holds: g.holds, last: g.last, onHeld: onHeld, onOpen: g.scanDue.fire}
	g.full = &fullScan{
		settings:   settings,
		hypervisor: deps.Hypervisor,
		scanner:    scan.New(settings, deps.Hypervisor, pin.Lister(settings.StateDir, g.holds.pins)),
		root:       g.root,
		holds:      g.holds,
		records:    g.records,
		stale:      g.stale,
		last:       g.last,
		nova:       g.nova,
		arbiter: &arbiter{
			copies:    g.copies,
			runs:      runs.Of(settings.StateDir),
			settle:    deps.Settle,
			root:      g.root,
			instances: settings.InstancesPath,
			holds:     g.holds,
			records:   g.records,
			incidents: g.incidents,
			locks:     g.locks,
			nova:      g.nova,
			problems:  g.problems,
			options:   g.wishes,
		},
		problems: g.problems,
		save:     g.save,
	}
}

// remember takes over what an earlier life of the guard knew and held.
func (g *Guard) remember(inherited []*os.File) {
	if err := g.records.load(); err != nil {
		g.problems.set("records", err)
	}
	holds, host, err := g.memory.load()
	if err != nil {
		g.problems.set("holds", err)
	}
	g.holds.remember(holds)
	g.nova.rememberHost(host)
	for _, f := range inherited {
		if err := g.holds.adopt(f.Name(), f); err != nil {
			g.problems.set("shelf", fmt.Errorf("a descriptor of an earlier guard (%s) can't be used: %w", f.Name(), err))
		}
	}
	g.incidents.restore(g.wishes().Lock)
}

// Run guards until the context ends, and then hands the deleted files that are needed to
// the keeper. ready is called once, when every file has been looked for. Trouble with
// libvirt, Nova or a file is in Status.Problems and never ends it. keeper.ErrRunning when
// another guard runs; any other error says what could not be handed over or closed.
func (g *Guard) Run(ctx context.Context, ready func()) (err error) {
	defer g.root.Close()
	defer func() { err = errors.Join(err, g.watch.Close()) }()
	defer g.holds.close()
	door, err := keeper.ListenGuard(g.settings.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, door.Close()) }()
	serving, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { door.Serve(serving, g.holds, g.statusParts) })
	g.scan(ctx)
	ready()
	work.Go(func() { g.tree.runOnChanges(serving) })
	work.Go(func() { g.poll.run(serving) })
	work.Go(func() {
		g.stale.follow(serving, g.full.hypervisor, g.problems, g.wishes, g.full.noteUndefined, g.scanDue.fire)
	})
	work.Go(func() { g.locks.run(serving) })
	work.Go(func() { g.copies.run(serving) })
	work.Go(func() { g.twins.run(serving) })
	g.locks.due.fire()
	g.scanWhenDue(ctx)
	stop()
	work.Wait()
	return g.end(context.WithoutCancel(ctx))
}

// Configure changes the guard's options, from its next scan on.
func (g *Guard) Configure(o Options) {
	g.configure(o)
	g.scanDue.fire()
}

func (g *Guard) configure(o Options) {
	g.options.Store(&o)
	g.nova.configure(o.SignIn)
}

// wishes are the options as they are now.
func (g *Guard) wishes() Options { return *g.options.Load() }

// scanWhenDue scans in full until the context ends.
func (g *Guard) scanWhenDue(ctx context.Context) {
	for ctx.Err() == nil {
		wait := g.wishes().interval()
		if g.isUndecided() {
			wait = min(wait, undecidedTime)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-g.scanDue:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() == nil {
			begun := time.Now()
			g.scan(ctx)
			recover.Pause(ctx, min(time.Since(begun), longestRest)) // a flood of changes does not take a processor
		}
	}
}

// scan makes one full scan, and one of the tree before it: a deletion by another client of
// a shared file system makes no event.
func (g *Guard) scan(ctx context.Context) {
	if g.findRoot != nil {
		err := g.findRoot(ctx)
		if err == nil {
			err = g.root.Reopen()
		}
		if err != nil {
			err = fmt.Errorf("the root in which libvirt sees the instances can't be looked for, and stays what it was: %w", err)
		}
		g.problems.set("root", err)
	}
	g.tree.run(ctx)
	g.full.run(ctx)
	if g.tree.beyond.Load() > 0 { // what libvirt names by now may be among that
		g.tree.run(ctx)
	}
}

// isUndecided is true while a deleted file waits for a decision.
func (g *Guard) isUndecided() bool {
	return slices.ContainsFunc(g.holds.deleted(), func(h guardHold) bool { return !h.Needed && time.Since(h.Deleted) < maxUndecided })
}

// save brings what the guard knows of its held files to the disk.
func (g *Guard) save() error { return g.memory.save(g.holds, g.nova.knownHost) }

// endTime bounds the last look, in which a hypervisor may hang.
const endTime = 10 * time.Second

// end looks once more, and hands the deleted files to the keeper of which it is not known that
// nobody needs them: without this process they would be nobody's.
func (g *Guard) end(ctx context.Context) error {
	looking, stop := context.WithTimeout(ctx, endTime)
	g.scan(looking)
	stop()
	g.tree.newlyDeleted() // also what was deleted a moment ago
	if err := g.save(); err != nil {
		zerolog.Ctx(ctx).Error().Err(err).Msg("the list of held files could not be written")
	}
	return g.twins.settle(ctx, lastTwinTime, func(h guardHold) bool { return !g.isUnneeded(h) })
}

// isUnneeded is true for a deleted file that can be made anew, and for the log of a guest that is back.
func (g *Guard) isUnneeded(h guardHold) bool {
	if h.Role == recover.RoleDiskInfo {
		return true
	}
	inIncident := func(uuid string) bool {
		_, ok := g.incidents.get(uuid)
		return ok
	}
	return h.Role == recover.RoleConsoleLog && (!h.Needed || !slices.ContainsFunc(h.Owners, inIncident))
}
