package recover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/treewatch"
)

// GuardOptions are how a guard goes about it.
type GuardOptions struct {
	Interval time.Duration // between two full scans; 0 is DefaultGuardInterval
	// Grace is how long a deleted file is held whose instance nobody knows any
	// more, when Nova can't be asked.
	Grace time.Duration
	// MinFree is the share of a file system, 0 to 1, below which deleted files
	// that are in nobody's need are let go at once.
	MinFree float64
	// Lock locks an instance in Nova as soon as its files are deleted.
	Lock bool
	// SignIn connects to Nova; nil: the guard works without. ErrCloudUnavailable
	// and the like are tried again at the next scan.
	SignIn func(ctx context.Context) (Cloud, error)
}

// The defaults of GuardOptions.
const (
	DefaultGuardInterval = 15 * time.Second
	DefaultGuardGrace    = 24 * time.Hour
	DefaultGuardMinFree  = 0.05
)

const (
	// settleTime is how long a file must have been deleted before it is let go,
	// and how long the domain of a stopped instance may take to follow its files,
	// when Nova can't be asked: Nova deletes the files of an instance first, and
	// undefines its domain then (nova/virt/libvirt/driver.py, _cleanup).
	settleTime = 5 * time.Second
	// soonTime is when what is not settled is looked at again.
	soonTime = time.Second
	// lookTime bounds one full scan, in which a hypervisor may hang.
	lookTime = 2 * time.Minute
)

// Guard holds every file of the host's instances open, so that no inode is lost
// whoever deletes, reboots or stops what; it notices deletions, and lets go what
// nobody needs any more. It is made by NewGuard and works while Run runs.
type Guard struct {
	e       *Engine
	root    *beneath.Root
	state   stateDir
	holds   *holdings
	watch   *treewatch.Watcher
	started time.Time

	lookNow   chan struct{} // a full scan is due; room for one
	lockNow   chan struct{} // instances are to be locked; room for one
	sweeping  sync.Mutex    // held by a sweep
	saving    sync.Mutex    // held while holds.json is written
	savedHost string        // what holds.json says; under saving
	settled   func() time.Duration

	mu        sync.Mutex
	options   GuardOptions
	records   map[string]guardRecord
	report    Report
	scanned   time.Time
	incidents map[string]*Incident
	seen      int
	stale     map[string]bool   // domains whose definition may have changed; "" is all
	problems  map[string]string // by what is kept from its work
	silly     map[uint64]bool   // devices on which nothing is held, and those tried
	cloud     Cloud             // once signed in

	host         string     // this host's name, once Nova was seen to use it
	signing      sync.Mutex // held while it signs in
	signInFailed time.Time
}

// NewGuard makes the guard of a host. The shelf may be nil. It takes over what an
// earlier guard had put there: inherited, each called by its name on it.
//
// ErrUnusable when the state directory or the root can't be used.
func (e *Engine) NewGuard(o GuardOptions, shelf Shelf, inherited []*os.File) (*Guard, error) {
	g := &Guard{e: e, state: stateDir(e.Settings.StateDir), holds: newHoldings(shelf), started: time.Now().UTC(), options: o,
		lookNow: make(chan struct{}, 1), lockNow: make(chan struct{}, 1), settled: func() time.Duration { return settleTime },
		incidents: map[string]*Incident{}, stale: map[string]bool{"": true}, problems: map[string]string{}, silly: map[uint64]bool{}}
	if err := g.state.make(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(g.state.guard(), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	var err error
	if g.root, err = beneath.OpenRoot(e.Settings.Root); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	if g.watch, err = treewatch.New(); err != nil {
		g.root.Close()
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	g.holds.poke = g.lookSoon
	e.ownPins = g.holds.pins
	g.remember(inherited)
	return g, nil
}

// remember takes over what an earlier life of the guard knew and held.
func (g *Guard) remember(inherited []*os.File) {
	var err error
	if g.records, err = g.state.guardRecords(); err != nil {
		g.problem("records", err)
	}
	if g.records == nil {
		g.records = map[string]guardRecord{}
	}
	if g.holds.memory, g.host, err = g.state.loadHolds(); err != nil {
		g.problem("holds", err)
	}
	for _, f := range inherited {
		if err := g.holds.adopt(f.Name(), f); err != nil {
			g.problem("shelf", fmt.Errorf("a descriptor of an earlier guard (%s) can't be used: %w", f.Name(), err))
		}
	}
	for uuid, r := range g.records {
		if r.Incident != nil {
			g.incidents[uuid] = &Incident{UUID: uuid, Since: r.Incident.Since, Found: r.Incident.Found,
				Locked: r.Lock != "" && !g.options.Lock} // else it is looked at again
			g.describe(uuid)
		}
	}
}

// Run guards until the context ends, and then hands deleted files that are needed
// to the keeper. ready is called once when every file has been looked for.
// Trouble with libvirt, Nova or a file is in GuardStatus.Problems and never ends
// it. ErrRunning of package keeper when another guard runs.
func (g *Guard) Run(ctx context.Context, ready func()) (err error) {
	defer g.root.Close()
	defer func() { err = errors.Join(err, g.watch.Close()) }()
	defer g.holds.close()
	door, err := keeper.ListenGuard(g.e.Settings.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, door.Close()) }()
	serving, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { door.Serve(serving, g.holds, g.statusParts) })
	g.sweep(ctx)
	g.look(ctx)
	ready()
	work.Go(func() { g.sweepOn(serving) })
	work.Go(func() { g.hearEvents(serving) })
	work.Go(func() { g.lockOn(serving) })
	g.lockSoon()
	g.lookOn(ctx)
	stop()
	work.Wait()
	return g.handOver(context.WithoutCancel(ctx))
}

// Configure changes how the guard goes about it, from its next scan on.
func (g *Guard) Configure(o GuardOptions) {
	g.mu.Lock()
	g.options = o
	g.cloud = nil // the credentials may be others
	g.mu.Unlock()
	g.lookSoon()
}

// sweepOn sweeps whenever a name in the tree has changed. After a burst there is
// one sweep at once, and one more when it is quiet.
func (g *Guard) sweepOn(ctx context.Context) {
	const quiet = 50 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.watch.C():
		}
		g.sweep(ctx)
		pause(ctx, quiet)
	}
}

// lookOn scans in full when it is due.
func (g *Guard) lookOn(ctx context.Context) {
	for ctx.Err() == nil {
		wait := g.optionsNow().Interval
		if wait <= 0 {
			wait = DefaultGuardInterval
		}
		if g.unsettled() {
			wait = min(wait, soonTime)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-g.lookNow:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() == nil {
			g.sweep(ctx) // what another client of a shared file system has deleted makes no event
			g.look(ctx)
		}
	}
}

// hearEvents has domains looked at that have changed.
func (g *Guard) hearEvents(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := g.e.Hypervisor.Events(ctx)
		if err != nil {
			g.problem("events", fmt.Errorf("libvirt's events are not heard, so domains are looked at only every %s: %w", g.optionsNow().Interval, err))
			pause(ctx, DefaultGuardInterval)
			continue
		}
		g.problem("events", nil)
		g.domainChanged("") // before it was heard
		for uuid := range events {
			g.domainChanged(uuid)
		}
	}
}

// domainChanged has a domain, or with "" all of them, read anew.
func (g *Guard) domainChanged(uuid string) {
	g.mu.Lock()
	g.stale[uuid] = true
	g.mu.Unlock()
	g.lookSoon()
}

// lookSoon has the next full scan made now.
func (g *Guard) lookSoon() {
	select {
	case g.lookNow <- struct{}{}:
	default:
	}
}

// unsettled is true while a deleted file waits for a decision.
func (g *Guard) unsettled() bool {
	return slices.ContainsFunc(g.holds.deleted(), func(h guardHold) bool { return !h.Needed && time.Since(h.Deleted) < time.Minute })
}

func (g *Guard) optionsNow() GuardOptions {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.options
}

// problem notes what keeps the guard from its work, or with nil that it no longer does.
func (g *Guard) problem(what string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		delete(g.problems, what)
		return
	}
	g.problems[what] = err.Error()
}

// handOver gives deleted files that an instance needs to the keeper, which stays
// when the guard goes. Without an incident nobody would miss them.
func (g *Guard) handOver(ctx context.Context) error {
	var needed []guardHold
	for _, h := range g.holds.deleted() {
		// A log of a guest that is back is nobody's any more.
		if h.Needed && (h.Role != RoleConsoleLog || slices.ContainsFunc(h.Owners, func(o string) bool { return g.incident(o).UUID != "" })) {
			needed = append(needed, h)
		}
	}
	if err := g.save(); err != nil {
		zerolog.Ctx(ctx).Error().Err(err).Msg("what is held could not be noted")
	}
	if len(needed) == 0 {
		return nil
	}
	c, err := keeper.Start(ctx, keeper.Options{Dir: g.e.Settings.StateDir, Command: g.e.Settings.KeeperCommand})
	if err != nil {
		return fmt.Errorf("%d deleted files that instances need can't be handed to the keeper, and are held by their QEMU alone, if that lives: %w", len(needed), err)
	}
	defer c.Close()
	var errs error
	for _, h := range needed {
		errs = errors.Join(errs, giveTo(ctx, c, h))
	}
	if errs == nil {
		zerolog.Ctx(ctx).Warn().Int("files", len(needed)).Int("keeper", c.PID()).Msg("the guard ends in the middle of an incident: the keeper holds the deleted files now")
	}
	return errs
}
