package recover

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

// Session is one run from its plan to its end. It holds the host's lock of runs:
// Close it.
type Session struct {
	e       *Engine
	state   stateDir
	started time.Time

	lock   *os.File
	log    *journal
	root   *beneath.Root
	owners *owners
	dirs   *directories
	once   *oncePerRun
	pins   *custody
	cloud  Cloud // nil offline
	plan   Plan

	resuming bool                  // an interrupted run is finished: its directory stays whatever happens
	history  map[string]*prior     // what it had done, by UUID; empty for a new one
	locks    map[string]lockRecord // its locks in Nova, by UUID
	backup   *backupDir            // nil when the run keeps no backup

	mu      sync.Mutex
	reports map[string]InstanceReport
}

func newSession(e *Engine) *Session {
	return &Session{e: e, state: stateDir(e.Settings.StateDir), started: time.Now().UTC(), once: newOncePerRun(),
		history: map[string]*prior{}, locks: map[string]lockRecord{}, reports: map[string]InstanceReport{}}
}

// run is what the session's tasks share.
func (s *Session) run() *run {
	return &run{settings: s.e.Settings, hypervisor: s.e.Hypervisor, cloud: s.cloud, progress: s.e.Progress, plan: s.plan, resuming: s.resuming,
		history: s.history, log: s.log, stateDir: s.state, root: s.root, owners: s.owners, pins: s.pins,
		scan: s.e.scanner().domain, pollInterval: s.e.novaInterval()}
}

func (s *Session) workshop() workshop {
	return workshop{dirs: s.dirs, once: s.once, backup: s.backup, replan: s.replan}
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
	for _, plan := range work {
		bytes += plan.Bytes()
	}
	if len(work) > 0 {
		s.e.Progress.Begin(len(work), bytes)
		defer s.e.Progress.End()
	}
	if err := s.openBackup(); err != nil {
		return s.report(ctx), err
	}
	watching := startWitness(ctx, s.e.Settings.UndoCommand, s.plan, s.lock)
	defer watching.end()
	r := s.run()
	locks := newNovaLocks(r, s.locks)
	err := locks.lockAll(ctx, slices.DeleteFunc(work, func(plan InstancePlan) bool {
		_, done := s.settled(plan.UUID)
		return done
	}))
	if err == nil {
		err = s.work(ctx, r, locks)
	}
	err = errors.Join(err, s.dirs.clean())
	report := s.report(ctx)
	if err == nil {
		err = s.log.Write(Record{Step: stepRun, Phase: PhaseDone}, runEnd{report.Interrupted})
	}
	zerolog.Ctx(ctx).Debug().Str("run", s.plan.Run).Msg("run ended")
	return report, err
}

// openBackup opens the backup directory of a run that keeps one.
func (s *Session) openBackup() (err error) {
	dir := s.plan.Options.BackupDir
	if dir == "" || s.plan.Command == CommandRestore || s.backup != nil || len(s.plan.Work()) == 0 {
		return nil
	}
	s.backup, err = openBackupDir(dir, s.e.Settings.Host)
	return err
}

// work goes through the instances, in batches where the options say so; what is
// left alone anyway belongs to none.
func (s *Session) work(ctx context.Context, r *run, locks *novaLocks) error {
	parallel := max(1, s.plan.Options.Parallel)
	if s.plan.OneByOne {
		parallel = 1
	}
	var due []InstancePlan
	for _, plan := range s.plan.Instances {
		if done, ok := s.settled(plan.UUID); ok {
			s.note(done)
			continue
		}
		if isWork(plan) {
			due = append(due, plan)
		} else if err := s.workOn(ctx, r, locks, plan); err != nil {
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
		for _, plan := range batch {
			g.Go(func() error { return s.workOn(ctx, r, locks, plan) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func isWork(plan InstancePlan) bool { return plan.Action != ActionNone && plan.Action != ActionRefuse }

// workOn works on one instance and journals how it ended.
func (s *Session) workOn(ctx context.Context, r *run, locks *novaLocks, plan InstancePlan) error {
	i := newInstance(r, s.workshop(), plan)
	defer i.Close()
	if err := s.log.Write(Record{Instance: plan.UUID, Step: stepInstance, Phase: PhaseBegin}, nil); err != nil {
		return err
	}
	report, settled := i.do(ctx, locks.refusal(plan.UUID))
	report, settled = locks.unlockAfter(ctx, i.t, report, settled, i.files.areAllBack())
	s.note(report)
	if isWork(plan) {
		s.e.Progress.Done(i.t.subject(), report)
	}
	return s.log.Write(Record{Instance: plan.UUID, Step: stepInstance, Phase: PhaseDone}, settlement{Report: report, Settled: settled})
}

func (s *Session) note(r InstanceReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports[r.UUID] = r
}

// settled returns the report of an instance that an interrupted run had finished.
func (s *Session) settled(uuid string) (InstanceReport, bool) {
	h := s.history[uuid]
	if h == nil || h.settlement == nil || !h.settlement.Settled {
		return InstanceReport{}, false
	}
	return h.settlement.Report, true
}

func (s *Session) report(ctx context.Context) RunReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := RunReport{Run: s.plan.Run, Command: s.plan.Command, Host: s.plan.Host, Mode: s.plan.Mode,
		Started: s.started, Finished: time.Now().UTC(), Instances: []InstanceReport{}, Elsewhere: s.plan.Elsewhere, Warnings: s.plan.Warnings}
	for _, plan := range s.plan.Instances {
		if report, ok := s.reports[plan.UUID]; ok {
			r.Instances = append(r.Instances, report)
		}
	}
	// A wish to stop that came when all was done, or could only be finished,
	// has interrupted nothing.
	r.Interrupted = ctx.Err() != nil && (len(r.Instances) < len(s.plan.Instances) || r.Unrescued() > 0)
	return r
}

// Abandon undoes Prepare, because the operator said no: the pins that this run
// took are released, no trace of it stays, and it is closed. An interrupted run
// stays as it is.
func (s *Session) Abandon(ctx context.Context) error {
	defer s.Close()
	if s.resuming {
		return nil
	}
	var err error
	if s.pins != nil {
		err = s.pins.releaseOwn(ctx)
	}
	if s.plan.Run != "" {
		err = errors.Join(err, os.RemoveAll(s.state.run(s.plan.Run)))
	}
	return err
}

// Close lets go of the host's lock and of everything that is open. It may be
// called twice.
func (s *Session) Close() {
	if s.pins != nil {
		s.pins.Close()
	}
	if s.dirs != nil {
		s.dirs.Close()
	}
	if s.log != nil {
		s.log.Close()
		s.log = nil
	}
	if s.root != nil {
		s.root.Close()
		s.root = nil
	}
	if s.lock != nil {
		unlock(s.lock)
		s.lock = nil
	}
}
