package run

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/owners"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/run/backup"
	"github.com/os-rescue/os-rescue/recover/run/staging"
	"github.com/os-rescue/os-rescue/recover/run/task"
	"github.com/os-rescue/os-rescue/recover/statedir"
	"github.com/os-rescue/os-rescue/recover/treelock"
)

// Session is one run from its plan to its end. It holds the locks of runs:
// Close it.
type Session struct {
	e       *Engine
	state   statedir.Dir
	started time.Time

	lock   *os.File       // of the state directory
	tree   *treelock.Lock // of the instances directory
	log    *journal.Writer
	root   *beneath.Root
	owners *owners.Table
	dirs   *staging.Directories
	once   *staging.Once
	pins   *pin.Custody
	cloud  recover.Cloud // nil offline
	plan   recover.Plan

	resuming bool                        // an interrupted run is finished: its directory stays whatever happens
	history  map[string]*journal.History // what it had done, by UUID; empty for a new one
	locks    map[string]journal.Lock     // its locks in Nova, by UUID
	backup   *backup.Dir                 // nil when the run keeps no backup

	notes []string // what the report says beside the plan's warnings

	mu      sync.Mutex
	reports map[string]recover.InstanceReport
}

func newSession(e *Engine) *Session {
	return &Session{
		e:       e,
		state:   statedir.Dir(e.Settings.StateDir),
		started: time.Now().UTC(),
		once:    staging.NewOnce(),
		history: map[string]*journal.History{},
		locks:   map[string]journal.Lock{},
		reports: map[string]recover.InstanceReport{},
	}
}

// run is what the session's tasks share.
func (s *Session) run() *task.Run {
	return &task.Run{
		Settings:   s.e.Settings,
		Hypervisor: s.e.Hypervisor,
		Cloud:      s.cloud,
		Progress:   s.e.Progress,
		Plan:       s.plan,
		Resuming:   s.resuming,
		History:    s.history,
		Log:        s.log,
		StateDir:   s.state,
		Root:       s.root,
		Owners:     s.owners,
		Pins:       s.pins,
		Scan:       s.e.scannerOf(s.plan.Command, s.plan.Options).Keeping(s.pins.Keeps).Domain,
		Absent: func(ctx context.Context, server recover.Server) (recover.Instance, error) {
			return s.e.scannerOf(s.plan.Command, s.plan.Options).NovaOnly(ctx, server, recover.Hints{})
		},
		PollInterval: s.e.novaInterval(),
	}
}

func (s *Session) workshop() workshop {
	return workshop{dirs: s.dirs, once: s.once, backup: s.backup, replan: s.replan}
}

// Plan returns what Execute will do.
func (s *Session) Plan() recover.Plan { return s.plan }

// Execute carries the plan out. Trouble with an instance is in the report; the error is
// for what stops the run as a whole: a journal that can't be written, or a backup
// directory that can't be used (recover.ErrUnusable). When the context ends, the instances
// whose domain is not destroyed yet are put back as they were found, and the others are
// first brought back into service: the report says Interrupted.
func (s *Session) Execute(ctx context.Context) (recover.RunReport, error) {
	touched := s.plan.Work()
	var bytes int64
	for _, plan := range touched {
		bytes += plan.Bytes()
	}
	if len(touched) > 0 {
		s.e.Progress.Begin(len(touched), bytes)
		defer s.e.Progress.End()
	}
	if err := s.openBackup(); err != nil {
		return s.endUntouched(ctx, err)
	}
	if s.plan.Command.Publishes() {
		id := computeID{s.e.Settings, s.root, s.owners, s.log}
		notes, err := id.putBack()
		if err != nil {
			return s.endUntouched(ctx, err)
		}
		s.notes = append(s.notes, notes...)
	}
	watching := startWitness(ctx, s.e.Settings.UndoCommand, s.plan, s.lock, s.tree)
	defer watching.end()
	r := s.run()
	locks := newNovaLocks(r, s.locks)
	err := locks.lockAll(ctx, slices.DeleteFunc(touched, func(plan recover.InstancePlan) bool {
		_, done := s.settled(plan.UUID)
		return done || plan.Action == recover.ActionDirectories
	}))
	if err == nil {
		err = s.work(ctx, r, locks)
	}
	// The run ends, and what it holds with it: a keeper that died a moment ago is replaced first.
	err = errors.Join(err, s.dirs.Clean(), s.pins.HandOn(ctx))
	report := s.report(ctx)
	if err == nil {
		err = s.log.Write(journal.Record{Step: journal.StepRun, Phase: recover.PhaseDone}, journal.End{Interrupted: report.Interrupted})
	}
	lookAgain(ctx, r, &report)
	zerolog.Ctx(ctx).Debug().Str("run", s.plan.Run).Msg("run ended")
	return report, err
}

// endUntouched ends a run that can't begin, because of err: nothing of its instances was
// touched, and nothing is left for a resume. Where an interrupted run had begun, it stays so.
func (s *Session) endUntouched(ctx context.Context, err error) (recover.RunReport, error) {
	for _, h := range s.history {
		if h.Unsettled() {
			return s.report(ctx), err
		}
	}
	for _, plan := range s.plan.Instances {
		if done, ok := s.settled(plan.UUID); ok {
			s.note(done)
			continue
		}
		t := task.New(s.run(), plan)
		report := t.End(recover.OutcomeSkipped, t.Fail(err,
			sentence("Nothing of it was touched", s.pins.WhoHolds(ctx, plan.UUID)), "Run the command again"))
		s.note(report)
		done := journal.Record{Instance: plan.UUID, Step: journal.StepInstance, Phase: recover.PhaseDone}
		if jerr := s.log.Write(done, journal.Settlement{Report: report, Settled: true}); jerr != nil {
			return s.report(ctx), errors.Join(err, jerr)
		}
	}
	return s.report(ctx), errors.Join(err, s.log.Write(journal.Record{Step: journal.StepRun, Phase: recover.PhaseDone}, journal.End{}))
}

// openBackup opens the backup directory of a run that keeps one.
func (s *Session) openBackup() (err error) {
	dir := s.plan.Options.BackupDir
	if dir == "" || s.plan.Command == recover.CommandRestore || s.backup != nil || len(s.plan.Work()) == 0 {
		return nil
	}
	s.backup, err = backup.OpenDir(dir, s.plan.Options.AcceptOwner, s.e.Settings.Host)
	return err
}

// work goes through the instances, in batches where the options say so; what is
// left alone anyway belongs to none.
func (s *Session) work(ctx context.Context, r *task.Run, locks *novaLocks) error {
	parallel := max(1, s.plan.Options.Parallel)
	if s.plan.OneByOne {
		parallel = 1
	}
	var due []recover.InstancePlan
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
			recover.Pause(ctx, s.plan.Options.Reboot.BatchWait)
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

func isWork(plan recover.InstancePlan) bool {
	return plan.Action != recover.ActionNone && plan.Action != recover.ActionRefuse
}

// workOn works on one instance and journals how it ended.
func (s *Session) workOn(ctx context.Context, r *task.Run, locks *novaLocks, plan recover.InstancePlan) error {
	i := newInstance(r, s.workshop(), plan)
	defer i.close()
	if err := s.log.Write(journal.Record{Instance: plan.UUID, Step: journal.StepInstance, Phase: recover.PhaseBegin}, nil); err != nil {
		return err
	}
	report, settled := i.do(ctx, locks.refusal(plan.UUID))
	report, settled = locks.unlockAfter(ctx, i.t, report, settled, i.files.AreAllBack())
	s.note(report)
	if isWork(plan) {
		s.e.Progress.Done(i.t.Subject(), report)
	}
	done := journal.Record{Instance: plan.UUID, Step: journal.StepInstance, Phase: recover.PhaseDone}
	return s.log.Write(done, journal.Settlement{Report: report, Settled: settled})
}

func (s *Session) note(r recover.InstanceReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports[r.UUID] = r
}

// settled returns the report of an instance that an interrupted run had finished.
func (s *Session) settled(uuid string) (recover.InstanceReport, bool) {
	h := s.history[uuid]
	if h == nil || h.Settlement == nil || !h.Settlement.Settled {
		return recover.InstanceReport{}, false
	}
	return h.Settlement.Report, true
}

func (s *Session) report(ctx context.Context) recover.RunReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := recover.RunReport{
		Run:       s.plan.Run,
		Command:   s.plan.Command,
		Host:      s.plan.Host,
		Mode:      s.plan.Mode,
		Started:   s.started,
		Finished:  time.Now().UTC(),
		Instances: []recover.InstanceReport{},
		Elsewhere: s.plan.Elsewhere,
		Warnings:  append(slices.Clip(s.plan.Warnings), s.notes...),
	}
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

// Abandon undoes Prepare, because the operator said no: it releases the pins that this
// run took, removes every trace of the run, and closes the session. An interrupted run
// that was to be resumed stays as it is. The error says what could not be undone.
func (s *Session) Abandon(ctx context.Context) error {
	defer s.Close()
	if s.resuming {
		return nil
	}
	var err error
	if s.pins != nil {
		err = s.pins.ReleaseOwn(ctx)
	}
	if s.plan.Run != "" {
		err = errors.Join(err, os.RemoveAll(s.state.Run(s.plan.Run)))
	}
	return err
}

// Close lets go of the run's locks and of everything that is open. It may be
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
	s.tree.Release() // first: who waits for the run looks at the other one
	if s.lock != nil {
		statedir.Unlock(s.lock)
		s.lock = nil
	}
}
