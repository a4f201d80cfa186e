package run

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/novalock"
	"github.com/os-rescue/os-rescue/recover/run/task"
)

// novaLocks are the locks in Nova of one run's instances. They are safe for
// concurrent use.
type novaLocks struct {
	run *task.Run

	mu      sync.Mutex
	records map[string]journal.Lock // what the run did, or found, about a lock, by UUID
	refused map[string]error        // why an instance is left alone after a look at its lock
}

// newNovaLocks returns the locks of a run. earlier are those that an interrupted run
// has made or found, and not undone.
func newNovaLocks(r *task.Run, earlier map[string]journal.Lock) *novaLocks {
	return &novaLocks{run: r, records: earlier, refused: map[string]error{}}
}

// lockAll locks instances, before the first of them is touched, and reads each of
// them again: work that Nova accepted before the lock goes on in spite of it. What
// must be left alone after that is noted.
func (l *novaLocks) lockAll(ctx context.Context, plans []recover.InstancePlan) error {
	if l.run.Cloud == nil || l.run.Plan.Command == recover.CommandReboot {
		return nil
	}
	var g errgroup.Group
	g.SetLimit(recover.NovaParallel)
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

func (l *novaLocks) lockOne(ctx context.Context, plan recover.InstancePlan) error {
	before, err := novalock.Read(ctx, l.run.Cloud, plan.UUID)
	if gone := task.Deleted(before, err); gone != nil {
		return gone
	}
	if err != nil {
		return fmt.Errorf("it can't be locked: %w", err)
	}
	if err := l.lock(ctx, before); err != nil {
		return err
	}
	now, err := l.run.Cloud.Server(ctx, plan.UUID)
	switch gone := task.Deleted(now, err); {
	case gone != nil:
		return gone
	case err != nil:
		return fmt.Errorf("it can't be read after its lock: %w", err)
	case l.run.History[plan.UUID] != nil:
		return nil // what an interrupted run began is finished in any state
	case now.TaskState != "":
		return fmt.Errorf("%w: Nova has a task under way on it (%s) that it accepted before the lock: run this again when it has ended",
			recover.ErrRefused, now.TaskState)
	case now.Host != plan.Server.Host || now.VMState != plan.Server.VMState:
		return fmt.Errorf("%w: since the plan was made it has become %s on host %s: run this again", recover.ErrRefused, now.Status, now.Host)
	}
	return nil
}

// lock locks an instance, unless it is locked; the journal knows whose lock it is.
func (l *novaLocks) lock(ctx context.Context, server recover.Server) error {
	l.mu.Lock()
	known, again := l.records[server.UUID]
	l.mu.Unlock()
	if again && (known.Found || server.Locked) {
		return nil // by the run that is being resumed
	}
	reason := "os-rescue " + l.run.Plan.Run + ": its files were deleted and are being put back; a reboot or stop now would lose them"
	rec := journal.Lock{Reason: reason}
	point := journal.Record{Instance: server.UUID, Step: journal.StepLock, Phase: recover.PhaseBegin}
	begun := false
	_, err := novalock.Lock(ctx, l.run.Cloud, server, reason, func(found bool) error {
		rec.Found = found
		if err := l.run.Log.Write(point, rec); err != nil {
			return err
		}
		begun = true
		l.mu.Lock()
		l.records[server.UUID] = rec
		l.mu.Unlock()
		l.run.Progress.Step(recover.Subject{UUID: server.UUID, Domain: server.Domain, Name: server.Name}, journal.StepLock)
		return nil
	})
	if !begun {
		return err // the journal's: Nova was not asked
	}
	point.Phase = recover.PhaseDone
	if err != nil {
		point.Phase, point.Error = recover.PhaseFailed, recover.InWords(err.Error())
		err = fmt.Errorf("it can't be locked: %w", err)
	}
	return errors.Join(err, l.run.Log.Write(point, rec))
}

// unlockAfter undoes the run's own lock when an instance has ended: not while its
// files are still on their way, because then its owner could lose them; back is true
// when none is. A lock that can't be undone leaves the instance to resume.
func (l *novaLocks) unlockAfter(
	ctx context.Context, t *task.Task, report recover.InstanceReport, settled, back bool,
) (recover.InstanceReport, bool) {
	l.mu.Lock()
	rec, ok := l.records[t.Plan.UUID]
	l.mu.Unlock()
	if !ok || rec.Found {
		return report, settled
	}
	if !settled && !back {
		report.Notes = append(report.Notes, "it stays locked in Nova until its files are back")
		return report, settled
	}
	err := errors.New("os-rescue works offline")
	if l.run.Cloud != nil {
		err = t.UndoNow(ctx, journal.StepUnlock, func(ctx context.Context) error { return l.unlock(ctx, t, rec) })
		report.Notes = t.Notes()
	}
	if err == nil {
		return report, settled
	}
	if !settled && (report.Outcome == recover.OutcomeFailed || report.Outcome == recover.OutcomeInterrupted) {
		report.Notes = append(report.Notes, recover.InWords(fmt.Sprintf("it is still locked in Nova (%v)", err)))
		return report, settled
	}
	said := "its files are in place"
	if report.Error != "" {
		said = report.Error
	}
	report.Outcome = recover.OutcomeFailed
	report.Error = fmt.Sprintf("it is still locked in Nova (%v); %s. When Nova answers: os-rescue resume %s", err, said, l.run.Plan.Run)
	report.Error = recover.InWords(report.Error)
	return report, false
}

// unlock unlocks the instance, if the lock is still the run's own.
func (l *novaLocks) unlock(ctx context.Context, t *task.Task, rec journal.Lock) error {
	undone, err := novalock.Unlock(ctx, l.run.Cloud, t.Plan.UUID, rec.Reason)
	if undone.Theirs {
		t.Notef("somebody else has locked it meanwhile (%s): that lock stays", undone.Reason)
	}
	return err
}
