package recover

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// novaParallel is how many instances Nova is asked about at a time, where each
// takes but a few short requests.
const novaParallel = 8

// lockRecord is what a run did about an instance's lock in Nova.
type lockRecord struct {
	Reason string `json:"reason"`
	// Found is true when somebody had locked it already: that lock stays.
	Found bool `json:"found,omitempty"`
}

func (s *Session) lockReason() string {
	return "os-rescue " + s.plan.Run + ": its files were deleted and are being put back; a reboot or stop now would lose them"
}

// lockAll locks every instance that the run works on, before the first of them is
// touched, and reads it again: work that Nova accepted before the lock goes on in
// spite of it. What must be left alone after that is noted.
func (s *Session) lockAll(ctx context.Context) error {
	if s.cloud == nil || s.plan.Command == CommandReboot {
		return nil
	}
	var g errgroup.Group
	g.SetLimit(novaParallel)
	for _, ip := range s.plan.Work() {
		if _, done := s.settled(ip.UUID); done || ip.Server == nil || ctx.Err() != nil {
			continue
		}
		g.Go(func() error {
			err := s.lockOne(ctx, ip)
			if err != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.kept[ip.UUID] = err
			}
			return nil
		})
	}
	return g.Wait()
}

func (s *Session) lockOne(ctx context.Context, ip InstancePlan) error {
	before, err := s.cloud.Server(ctx, ip.UUID)
	if err == nil && before.Unknown {
		err = errCellDown
	}
	if err != nil {
		return fmt.Errorf("it can't be locked: %w", err)
	}
	if err := s.lockServer(ctx, before); err != nil {
		return err
	}
	now, err := s.cloud.Server(ctx, ip.UUID)
	switch {
	case err != nil:
		return fmt.Errorf("it can't be read after its lock: %w", err)
	case s.priors[ip.UUID] != nil:
		return nil // what an interrupted run began is finished in any state
	case now.TaskState != "":
		return fmt.Errorf("%w: Nova has a task under way on it (%s) that it accepted before the lock: run this again when it has ended", ErrRefused, now.TaskState)
	case now.Host != ip.Server.Host || now.VMState != ip.Server.VMState:
		return fmt.Errorf("%w: since the plan was made it has become %s on host %s: run this again", ErrRefused, now.Status, now.Host)
	}
	return nil
}

// lockServer locks an instance, unless it is locked; the journal knows whose lock
// it is.
func (s *Session) lockServer(ctx context.Context, server Server) error {
	s.mu.Lock()
	known, again := s.locks[server.UUID]
	s.mu.Unlock()
	if again && (known.Found || server.Locked) {
		return nil // by the run that is being resumed
	}
	rec := lockRecord{Reason: s.lockReason(), Found: server.Locked}
	point := Record{Instance: server.UUID, Step: stepLock, Phase: PhaseBegin}
	if err := s.journal.Write(point, rec); err != nil {
		return err
	}
	s.mu.Lock()
	s.locks[server.UUID] = rec
	s.mu.Unlock()
	s.e.Progress.Step(Subject{UUID: server.UUID, Domain: server.Domain, Name: server.Name}, stepLock)
	var err error
	if !rec.Found {
		err = s.cloud.Lock(ctx, server.UUID, rec.Reason)
	}
	point.Phase = PhaseDone
	if err != nil {
		point.Phase, point.Error = PhaseFailed, err.Error()
		err = fmt.Errorf("it can't be locked: %w", err)
	}
	return errors.Join(err, s.journal.Write(point, rec))
}

// unlockAfter undoes the run's own lock when an instance has ended: not while its
// files are still on their way, because then its owner could lose them. A lock
// that can't be undone leaves the instance to resume.
func (t *task) unlockAfter(ctx context.Context, report InstanceReport, settled bool) (InstanceReport, bool) {
	t.s.mu.Lock()
	rec, ok := t.s.locks[t.ip.UUID]
	t.s.mu.Unlock()
	if !ok || rec.Found {
		return report, settled
	}
	if !settled && !t.allPublished() {
		report.Notes = append(report.Notes, "it stays locked in Nova until its files are back")
		return report, settled
	}
	err := errors.New("os-rescue works offline")
	if t.s.cloud != nil {
		err = t.undoOne(ctx, undo{stepUnlock, func(ctx context.Context) error { return t.unlock(ctx, rec) }})
		report.Notes = t.report.Notes
	}
	if err == nil {
		return report, settled
	}
	if report.Outcome == OutcomeFailed && !settled {
		report.Notes = append(report.Notes, fmt.Sprintf("it is still locked in Nova (%v)", err))
		return report, settled
	}
	said := "as for its files all is well"
	if report.Error != "" {
		said = report.Error
	}
	report.Outcome = OutcomeFailed
	report.Error = fmt.Sprintf("it is still locked in Nova (%v); %s. When Nova answers: os-rescue resume %s", err, said, t.s.plan.Run)
	return report, false
}

// unlock unlocks the instance, if the lock is still the run's own.
func (t *task) unlock(ctx context.Context, rec lockRecord) error {
	server, err := t.s.cloud.Server(ctx, t.ip.UUID)
	switch {
	case errors.Is(err, ErrNoInstance):
		return nil
	case err != nil:
		return err
	case server.Unknown:
		return errCellDown
	case !server.Locked:
		return nil
	case server.LockedReason != rec.Reason && t.s.cloud.KeepsReasons():
		t.notef("somebody else has locked it meanwhile (%s): that lock stays", server.LockedReason)
		return nil
	}
	err = t.s.cloud.Unlock(ctx, t.ip.UUID)
	if errors.Is(err, ErrNoInstance) {
		return nil
	}
	return err
}

// allPublished is true when every file of the instance is at its path.
func (t *task) allPublished() bool {
	if !t.committed || len(t.staged) == 0 {
		return false
	}
	for _, staged := range t.staged {
		if staged == nil || !staged.published && !staged.kept {
			return false
		}
	}
	return true
}

// locksOf reads a journal for the locks that its run has made or found, and has
// not undone.
func locksOf(records []Record) (map[string]lockRecord, error) {
	locks := map[string]lockRecord{}
	for _, r := range records {
		switch r.Point() {
		case stepLock + ".begin":
			var rec lockRecord
			if err := r.decode(&rec); err != nil {
				return nil, err
			}
			locks[r.Instance] = rec
		case stepUnlock + ".done":
			delete(locks, r.Instance)
		}
	}
	return locks, nil
}

// attach joins what Nova says now with an instance that was scanned again.
func (s *Session) attach(ctx context.Context, i Instance) (Instance, error) {
	if s.cloud == nil {
		return i, nil
	}
	server, err := s.cloud.Server(ctx, i.UUID)
	if err != nil {
		return i, fmt.Errorf("ask Nova how it is: %w", err)
	}
	i.server = &server
	i.disagreement = disagreement(i, s.e.Settings.Host, server)
	return i, nil
}
