package recover

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

// novaLocks are the locks in Nova of one run's instances. They are safe for
// concurrent use.
type novaLocks struct {
	run *run

	mu      sync.Mutex
	records map[string]lockRecord // what the run did, or found, about a lock, by UUID
	refused map[string]error      // why an instance is left alone after a look at its lock
}

// newNovaLocks returns the locks of a run. earlier are those that an interrupted run
// has made or found, and not undone.
func newNovaLocks(r *run, earlier map[string]lockRecord) *novaLocks {
	return &novaLocks{run: r, records: earlier, refused: map[string]error{}}
}

// lockAll locks instances, before the first of them is touched, and reads each of
// them again: work that Nova accepted before the lock goes on in spite of it. What
// must be left alone after that is noted.
func (l *novaLocks) lockAll(ctx context.Context, plans []InstancePlan) error {
	if l.run.cloud == nil || l.run.plan.Command == CommandReboot {
		return nil
	}
	var g errgroup.Group
	g.SetLimit(novaParallel)
	for _, plan := range plans {
		if plan.Server == nil || ctx.Err() != nil {
			continue
		}
		g.Go(func() error {
			if err := l.lockOne(ctx, plan); err != nil {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.refused[plan.UUID] = err
			}
			return nil
		})
	}
	return g.Wait()
}

// refusal says why an instance is to be left alone; nil when it is not.
func (l *novaLocks) refusal(uuid string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused[uuid]
}

func (l *novaLocks) lockOne(ctx context.Context, plan InstancePlan) error {
	before, err := l.run.cloud.Server(ctx, plan.UUID)
	if err == nil && before.Unknown {
		err = errCellDown
	}
	if err != nil {
		return fmt.Errorf("it can't be locked: %w", err)
	}
	if err := l.lock(ctx, before); err != nil {
		return err
	}
	now, err := l.run.cloud.Server(ctx, plan.UUID)
	switch {
	case err != nil:
		return fmt.Errorf("it can't be read after its lock: %w", err)
	case l.run.history[plan.UUID] != nil:
		return nil // what an interrupted run began is finished in any state
	case now.TaskState != "":
		return fmt.Errorf("%w: Nova has a task under way on it (%s) that it accepted before the lock: run this again when it has ended",
			ErrRefused, now.TaskState)
	case now.Host != plan.Server.Host || now.VMState != plan.Server.VMState:
		return fmt.Errorf("%w: since the plan was made it has become %s on host %s: run this again", ErrRefused, now.Status, now.Host)
	}
	return nil
}

// lock locks an instance, unless it is locked; the journal knows whose lock it is.
func (l *novaLocks) lock(ctx context.Context, server Server) error {
	l.mu.Lock()
	known, again := l.records[server.UUID]
	l.mu.Unlock()
	if again && (known.Found || server.Locked) {
		return nil // by the run that is being resumed
	}
	reason := "os-rescue " + l.run.plan.Run + ": its files were deleted and are being put back; a reboot or stop now would lose them"
	rec := lockRecord{Reason: reason, Found: server.Locked}
	point := Record{Instance: server.UUID, Step: stepLock, Phase: PhaseBegin}
	if err := l.run.log.Write(point, rec); err != nil {
		return err
	}
	l.mu.Lock()
	l.records[server.UUID] = rec
	l.mu.Unlock()
	l.run.progress.Step(Subject{UUID: server.UUID, Domain: server.Domain, Name: server.Name}, stepLock)
	var err error
	if !rec.Found {
		err = l.run.cloud.Lock(ctx, server.UUID, rec.Reason)
	}
	point.Phase = PhaseDone
	if err != nil {
		point.Phase, point.Error = PhaseFailed, err.Error()
		err = fmt.Errorf("it can't be locked: %w", err)
	}
	return errors.Join(err, l.run.log.Write(point, rec))
}

// unlockAfter undoes the run's own lock when an instance has ended: not while its
// files are still on their way, because then its owner could lose them; back is true
// when none is. A lock that can't be undone leaves the instance to resume.
func (l *novaLocks) unlockAfter(ctx context.Context, t *task, report InstanceReport, settled, back bool) (InstanceReport, bool) {
	l.mu.Lock()
	rec, ok := l.records[t.plan.UUID]
	l.mu.Unlock()
	if !ok || rec.Found {
		return report, settled
	}
	if !settled && !back {
		report.Notes = append(report.Notes, "it stays locked in Nova until its files are back")
		return report, settled
	}
	err := errors.New("os-rescue works offline")
	if l.run.cloud != nil {
		err = t.undoNow(ctx, stepUnlock, func(ctx context.Context) error { return l.unlock(ctx, t, rec) })
		report.Notes = t.notes()
	}
	if err == nil {
		return report, settled
	}
	if report.Outcome == OutcomeFailed && !settled {
		report.Notes = append(report.Notes, fmt.Sprintf("it is still locked in Nova (%v)", err))
		return report, settled
	}
	said := "its files are in place"
	if report.Error != "" {
		said = report.Error
	}
	report.Outcome = OutcomeFailed
	report.Error = fmt.Sprintf("it is still locked in Nova (%v); %s. When Nova answers: os-rescue resume %s", err, said, l.run.plan.Run)
	return report, false
}

// unlock unlocks the instance, if the lock is still the run's own.
func (l *novaLocks) unlock(ctx context.Context, t *task, rec lockRecord) error {
	server, err := l.run.cloud.Server(ctx, t.plan.UUID)
	switch {
	case errors.Is(err, ErrNoInstance):
		return nil
	case err != nil:
		return err
	case server.Unknown:
		return errCellDown
	case !server.Locked:
		return nil
	case server.LockedReason != rec.Reason && l.run.cloud.KeepsReasons():
		t.notef("somebody else has locked it meanwhile (%s): that lock stays", server.LockedReason)
		return nil
	}
	err = l.run.cloud.Unlock(ctx, t.plan.UUID)
	if errors.Is(err, ErrNoInstance) {
		return nil
	}
	return err
}
