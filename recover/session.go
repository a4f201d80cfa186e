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
	"golang.org/x/sync/errgroup"

	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// Session is one run from its plan to its end. It holds the host's lock of runs:
// Close it.
type Session struct {
	e       *Engine
	plan    Plan
	cloud   Cloud // nil offline
	state   stateDir
	lock    *os.File
	journal *journal
	keeper  *keeper.Client
	root    *beneath.Root
	owners  *owners
	sources *sources
	stages  *stages
	shared  *sharedFiles
	backup  *backupDir        // nil when the run keeps no backup
	priors  map[string]*prior // what an interrupted run had done, by UUID; empty for a new one
	started time.Time

	resuming bool // an interrupted run is finished: its directory stays whatever happens

	sameBoot bool // the host was not booted since the run began

	keeping sync.Mutex // the keeper's client, and the two lists:
	foreign []string   // instances whose pins are older than this run
	pinned  []string   // instances that this run pinned
	looked  []string   // instances whose lost files it has tried to pin

	mu      sync.Mutex
	reports map[string]InstanceReport
	locks   map[string]lockRecord // what the run did, or found, about Nova's locks, by UUID
	kept    map[string]error      // why an instance is left alone after a look at its lock
}

// Prepare gets a run ready: it takes the host's lock, scans, has the keeper hold
// every lost file of the selected instances, and plans. Nothing else is changed,
// and no guest is touched. Abandon undoes it; Execute carries it out; Close must
// follow in any case.
//
// Errors: ErrBusy (another run is under way), ErrUsage, ErrNothingSelected,
// ErrUnusable (state directory, owners, keeper), ErrUnavailable (hypervisor), and
// unless the run is offline those of Cloud: ErrCredentials, ErrForbidden,
// ErrCloudUnavailable (what was pinned by then stays so), ErrNoProject, ErrAmbiguous.
func (e *Engine) Prepare(ctx context.Context, command Command, o Options) (*Session, error) {
	if err := o.Selection.Validate(); err != nil {
		return nil, err
	}
	s := e.newSession()
	s.sameBoot = true
	if err := s.prepare(ctx, command, o); err != nil {
		if errors.Is(err, ErrCloudUnavailable) {
			s.pinned = nil // held on while somebody thinks about going on without Nova
		}
		return nil, errors.Join(err, s.discard(ctx))
	}
	return s, nil
}

func (e *Engine) newSession() *Session {
	return &Session{e: e, state: stateDir(e.Settings.StateDir), started: time.Now().UTC(), priors: map[string]*prior{},
		reports: map[string]InstanceReport{}, locks: map[string]lockRecord{}, kept: map[string]error{}}
}

func (s *Session) prepare(ctx context.Context, command Command, o Options) error {
	if err := s.open(command); err != nil {
		return err
	}
	head := runHeader{Command: command, Mode: o.modeOf(command), Host: s.e.Settings.Host, PID: os.Getpid(), Options: o}
	var err error
	if head.BootID, err = bootID(procDir); err != nil {
		return err
	}
	if head.Run, err = s.state.newRun(s.started); err != nil {
		return err
	}
	s.plan.Run = head.Run
	if s.lock, err = s.state.lock(lockInfo{Run: head.Run, Command: command, PID: head.PID, Since: s.started}); err != nil {
		return err
	}
	if s.journal, _, err = openJournal(s.state.run(head.Run), s.e.Failpoint); err != nil {
		return err
	}
	if err := s.journal.Write(Record{Step: stepRun, Phase: PhaseBegin}, head); err != nil {
		return err
	}
	return s.choosePinPlan(ctx, head.Run, head)
}

// choosePinPlan fills the session in from a fresh scan. What the domains' own
// metadata says is meant is pinned before Nova is asked, however long that takes.
func (s *Session) choosePinPlan(ctx context.Context, id string, head runHeader) error {
	c := newChoice(s.e.Settings, s.e.scanner(), head.Command, head.Options)
	if err := c.scan(ctx); err != nil {
		return err
	}
	if err := s.releaseIntact(ctx, c.report); err != nil {
		return err
	}
	early, _ := fromScan(head.Options.Selection, c.report)
	if err := s.pinAll(ctx, head.Command, early); err != nil {
		return err
	}
	if err := s.signIn(ctx, head.Command, head.Options); err != nil {
		return err
	}
	if err := c.choose(ctx, s.cloud); err != nil {
		return err
	}
	if err := s.pinAll(ctx, head.Command, c.selected.here); err != nil {
		return err
	}
	if err := s.unpinOthers(ctx, c.selected.here); err != nil {
		return err
	}
	plan, err := s.e.makePlan(ctx, s.cloud, head.Command, head.Options, c.selected, s.resuming)
	if err != nil {
		return err
	}
	plan.Run, plan.BootID = id, head.BootID
	s.plan = plan
	return s.journal.Write(Record{Step: stepPlan, Phase: PhaseDone}, plan)
}

// pinAll pins what is lost of instances, each once.
func (s *Session) pinAll(ctx context.Context, command Command, instances []Instance) error {
	if command == CommandReboot {
		return nil
	}
	for _, i := range instances {
		if slices.Contains(s.looked, i.UUID) {
			continue
		}
		s.looked = append(s.looked, i.UUID)
		if err := s.pin(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// unpinOthers lets go of what was pinned early of instances that are not meant.
func (s *Session) unpinOthers(ctx context.Context, chosen []Instance) error {
	for _, uuid := range slices.Clone(s.pinned) {
		if slices.ContainsFunc(chosen, func(i Instance) bool { return i.UUID == uuid }) {
			continue
		}
		if err := s.release(ctx, uuid); err != nil {
			return err
		}
		s.pinned = slices.DeleteFunc(s.pinned, func(p string) bool { return p == uuid })
	}
	return nil
}

// signIn connects to Nova, where the run asks it.
func (s *Session) signIn(ctx context.Context, command Command, o Options) (err error) {
	s.cloud, err = s.e.signIn(ctx, command, o)
	return err
}

// open gets what every session needs before it knows its run.
func (s *Session) open(command Command) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: this needs root: it reads other users' descriptors and gives files to them", ErrUnusable)
	}
	if err := s.state.make(); err != nil {
		return err
	}
	var err error
	if s.root, err = beneath.OpenRoot(s.e.Settings.Root); err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	if command != CommandReboot { // which gives no file to anybody, and may run where nova is no user
		if s.owners, err = resolveOwners(s.e.Settings, s.root); err != nil {
			return err
		}
	}
	s.sources = &sources{open: map[string]copier.Source{}}
	s.stages = &stages{root: s.root, settings: s.e.Settings, dirs: map[string]*stage{}}
	s.shared = &sharedFiles{done: map[string]*sharedFile{}}
	return nil
}

// DryRun returns the plan that Prepare would make, and touches nothing at all.
// Errors are Prepare's, but for ErrBusy.
func (e *Engine) DryRun(ctx context.Context, command Command, o Options) (Plan, error) {
	if err := o.Selection.Validate(); err != nil {
		return Plan{}, err
	}
	c := newChoice(e.Settings, e.scanner(), command, o)
	if err := c.scan(ctx); err != nil {
		return Plan{}, err
	}
	cloud, err := e.signIn(ctx, command, o)
	if err != nil {
		return Plan{}, err
	}
	if err := c.choose(ctx, cloud); err != nil {
		return Plan{}, err
	}
	return e.makePlan(ctx, cloud, command, o, c.selected, false)
}

// Plan returns what Execute will do.
func (s *Session) Plan() Plan { return s.plan }

// Execute carries the plan out. Trouble with an instance is in the report; the
// error is for what stops the run as a whole. When the context ends, instances
// whose domain is not destroyed yet are put back as they were found, and the
// others are brought back into service first: the report says Interrupted.
func (s *Session) Execute(ctx context.Context) (RunReport, error) {
	work := s.plan.Work()
	var bytes int64
	for _, i := range work {
		bytes += i.Bytes()
	}
	if len(work) > 0 {
		s.e.Progress.Begin(len(work), bytes)
		defer s.e.Progress.End()
	}
	if err := s.openBackup(); err != nil {
		return s.report(ctx), err
	}
	watching := s.witness(ctx)
	defer watching.end()
	err := s.lockAll(ctx)
	if err == nil {
		err = s.work(ctx)
	}
	err = errors.Join(err, s.stages.clean())
	report := s.report(ctx)
	if err == nil {
		err = s.journal.Write(Record{Step: stepRun, Phase: PhaseDone}, runEnd{report.Interrupted})
	}
	zerolog.Ctx(ctx).Debug().Str("run", s.plan.Run).Msg("run ended")
	return report, err
}

// work goes through the instances, in batches where the options say so; what is
// left alone anyway belongs to none.
func (s *Session) work(ctx context.Context) error {
	parallel := max(1, s.plan.Options.Parallel)
	if s.plan.OneByOne {
		parallel = 1
	}
	var due []InstancePlan
	for _, ip := range s.plan.Instances {
		if done, ok := s.settled(ip.UUID); ok {
			s.note(done)
			continue
		}
		if ip.Action != ActionNone && ip.Action != ActionRefuse {
			due = append(due, ip)
		} else if err := s.instance(ctx, ip); err != nil {
			return err
		}
	}
	size := len(due)
	if n := s.plan.Options.Reboot.BatchSize; n > 0 {
		size = n
	}
	waited := false
	for batch := range slices.Chunk(due, max(1, size)) {
		if waited {
			pause(ctx, s.plan.Options.Reboot.BatchWait)
		}
		waited = true
		var g errgroup.Group
		g.SetLimit(parallel)
		for _, ip := range batch {
			g.Go(func() error { return s.instance(ctx, ip) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// instance works on one instance and journals how it ended.
func (s *Session) instance(ctx context.Context, ip InstancePlan) error {
	t := newTask(s, ip)
	if err := s.journal.Write(Record{Instance: ip.UUID, Step: stepInstance, Phase: PhaseBegin}, nil); err != nil {
		return err
	}
	report, settled := t.do(ctx)
	report, settled = t.unlockAfter(ctx, report, settled)
	s.note(report)
	if ip.Action != ActionNone && ip.Action != ActionRefuse {
		s.e.Progress.Done(t.subject(), report)
	}
	return s.journal.Write(Record{Instance: ip.UUID, Step: stepInstance, Phase: PhaseDone}, settlement{Report: report, Settled: settled})
}

func (s *Session) note(r InstanceReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports[r.UUID] = r
}

// settled returns the report of an instance that an interrupted run had finished.
func (s *Session) settled(uuid string) (InstanceReport, bool) {
	p := s.priors[uuid]
	if p == nil || p.settlement == nil || !p.settlement.Settled {
		return InstanceReport{}, false
	}
	return p.settlement.Report, true
}

func (s *Session) report(ctx context.Context) RunReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := RunReport{Run: s.plan.Run, Command: s.plan.Command, Host: s.plan.Host, Mode: s.plan.Mode,
		Started: s.started, Finished: time.Now().UTC(), Instances: []InstanceReport{}, Elsewhere: s.plan.Elsewhere, Warnings: s.plan.Warnings}
	for _, ip := range s.plan.Instances {
		if ir, ok := s.reports[ip.UUID]; ok {
			r.Instances = append(r.Instances, ir)
		}
	}
	// A wish to stop that came when all was done, or could only be finished,
	// has interrupted nothing.
	r.Interrupted = ctx.Err() != nil && (len(r.Instances) < len(s.plan.Instances) || r.Unrescued() > 0)
	return r
}

// Abandon undoes Prepare, because the operator said no: the pins that this run
// took are let go, and no trace of it stays.
func (s *Session) Abandon(ctx context.Context) error { return s.discard(ctx) }

// discard lets the run's own pins go, removes its directory, and closes.
func (s *Session) discard(ctx context.Context) error {
	var err error
	if !s.resuming {
		for _, uuid := range s.pinned {
			err = errors.Join(err, s.release(context.WithoutCancel(ctx), uuid))
		}
		if s.plan.Run != "" {
			err = errors.Join(err, os.RemoveAll(s.state.run(s.plan.Run)))
		}
	}
	return errors.Join(err, s.Close())
}

// Close lets go of the host's lock and of everything that is open. It may be
// called twice.
func (s *Session) Close() error {
	if s.sources != nil {
		s.sources.Close()
	}
	if s.stages != nil {
		s.stages.Close()
	}
	if s.keeper != nil {
		s.keeper.Close()
		s.keeper = nil
	}
	if s.journal != nil {
		s.journal.Close()
		s.journal = nil
	}
	if s.root != nil {
		s.root.Close()
		s.root = nil
	}
	if s.lock != nil {
		unlock(s.lock)
		s.lock = nil
	}
	return nil
}
