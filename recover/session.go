package recover

import (
	"context"
	"errors"
	"fmt"
	"os"
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

	mu      sync.Mutex
	reports map[string]InstanceReport
}

// Prepare gets a run ready: it takes the host's lock, scans, has the keeper hold
// every lost file of the selected instances, and plans. Nothing else is changed,
// and no guest is touched. Abandon undoes it; Execute carries it out; Close must
// follow in any case.
//
// Errors: ErrBusy (another run is under way), ErrUsage, ErrNothingSelected,
// ErrUnusable (state directory, owners, keeper), ErrUnavailable (hypervisor).
func (e *Engine) Prepare(ctx context.Context, command Command, o Options) (*Session, error) {
	if err := o.Selection.Validate(); err != nil {
		return nil, err
	}
	s := &Session{e: e, state: stateDir(e.Settings.StateDir), started: time.Now().UTC(), sameBoot: true, reports: map[string]InstanceReport{}, priors: map[string]*prior{}}
	if err := s.prepare(ctx, command, o); err != nil {
		return nil, errors.Join(err, s.discard(ctx))
	}
	return s, nil
}

func (s *Session) prepare(ctx context.Context, command Command, o Options) error {
	if err := s.open(); err != nil {
		return err
	}
	head := runHeader{Command: command, Mode: "reboot", Host: s.e.Settings.Host, PID: os.Getpid(), Options: o}
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

// choosePinPlan fills the session in from a fresh scan.
func (s *Session) choosePinPlan(ctx context.Context, id string, head runHeader) error {
	chosen, report, err := s.e.choose(ctx, head.Command, head.Options)
	if err != nil {
		return err
	}
	if err := s.releaseIntact(ctx, report); err != nil {
		return err
	}
	for _, i := range chosen {
		if err := s.pin(ctx, i); err != nil {
			return err
		}
	}
	plan, err := s.e.plan(ctx, head.Command, head.Options, chosen, s.resuming)
	if err != nil {
		return err
	}
	plan.Run, plan.BootID = id, head.BootID
	s.plan = plan
	return s.journal.Write(Record{Step: stepPlan, Phase: PhaseDone}, plan)
}

// open gets what every session needs before it knows its run.
func (s *Session) open() error {
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
	if s.owners, err = resolveOwners(s.e.Settings, s.root); err != nil {
		return err
	}
	s.sources = &sources{open: map[string]copier.Source{}}
	s.stages = &stages{root: s.root, settings: s.e.Settings, dirs: map[string]*stage{}}
	s.shared = &sharedFiles{done: map[string]*sharedFile{}}
	return nil
}

// choose scans and returns the selected instances, and the whole scan.
func (e *Engine) choose(ctx context.Context, command Command, o Options) ([]Instance, Report, error) {
	report, err := e.Scan(ctx)
	if err != nil {
		return nil, report, err
	}
	if command == CommandRestore {
		chosen, err := chooseFromBackup(o, report)
		return chosen, report, err
	}
	chosen, err := o.Selection.apply(report)
	return chosen, report, err
}

// DryRun returns the plan that Prepare would make, and touches nothing at all.
// Errors are Prepare's, but for ErrBusy.
func (e *Engine) DryRun(ctx context.Context, command Command, o Options) (Plan, error) {
	if err := o.Selection.Validate(); err != nil {
		return Plan{}, err
	}
	chosen, _, err := e.choose(ctx, command, o)
	if err != nil {
		return Plan{}, err
	}
	return e.plan(ctx, command, o, chosen, false)
}

// plan plans the run for the chosen instances.
func (e *Engine) plan(ctx context.Context, command Command, o Options, chosen []Instance, resuming bool) (Plan, error) {
	plan := Plan{Command: command, Mode: "reboot", Host: e.Settings.Host, Created: time.Now().UTC(), Options: o, Instances: []InstancePlan{}}
	root, err := beneath.OpenRoot(e.Settings.Root)
	if err != nil {
		return plan, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	defer root.Close()
	if _, err := resolveOwners(e.Settings, root); err != nil {
		return plan, err
	}
	unsettled, err := e.unsettled(ctx)
	if err != nil {
		return plan, err
	}
	p := &planner{settings: e.Settings, root: root, options: o, unsettled: unsettled, resuming: resuming}
	planOne := p.rescue
	switch command {
	case CommandBackup:
		planOne = p.backup
	case CommandRestore:
		backup, err := readManifest(o.BackupDir)
		if err != nil {
			return plan, err
		}
		planOne = func(ctx context.Context, i Instance) InstancePlan { return p.restore(ctx, e.Hypervisor, backup, i) }
	}
	for _, i := range chosen {
		plan.Instances = append(plan.Instances, planOne(ctx, i))
	}
	err = p.space(&plan)
	return plan, err
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
	var g errgroup.Group
	g.SetLimit(max(1, s.plan.Options.Parallel))
	if s.plan.OneByOne {
		g.SetLimit(1)
	}
	for _, ip := range s.plan.Instances {
		if done, ok := s.settled(ip.UUID); ok {
			s.note(done)
			continue
		}
		g.Go(func() error { return s.instance(ctx, ip) })
	}
	err := g.Wait()
	err = errors.Join(err, s.stages.clean())
	report := s.report(ctx)
	if err == nil {
		err = s.journal.Write(Record{Step: stepRun, Phase: PhaseDone}, struct {
			Interrupted bool `json:"interrupted,omitempty"`
		}{report.Interrupted})
	}
	zerolog.Ctx(ctx).Debug().Str("run", s.plan.Run).Msg("run ended")
	return report, err
}

// instance works on one instance and journals how it ended.
func (s *Session) instance(ctx context.Context, ip InstancePlan) error {
	t := newTask(s, ip)
	if err := s.journal.Write(Record{Instance: ip.UUID, Step: stepInstance, Phase: PhaseBegin}, nil); err != nil {
		return err
	}
	report, settled := t.do(ctx)
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
	r := RunReport{Run: s.plan.Run, Command: string(s.plan.Command), Host: s.plan.Host, Mode: s.plan.Mode,
		Started: s.started, Finished: time.Now().UTC(), Instances: []InstanceReport{}}
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
