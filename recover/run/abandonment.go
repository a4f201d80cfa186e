package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/owners"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// Abandonment is a run that a person is ending as it is. It holds the host's lock of runs:
// Close it.
type Abandonment struct {
	s      *Session
	id     string
	status recover.RunStatus
	list   recover.Abandonment
	signIn error // why Nova can't be asked to undo the locks
}

// prepare lists what the run holds. It changes nothing.
func (a *Abandonment) prepare(ctx context.Context, name string, offline bool) error {
	s := a.s
	id, err := s.state.Find(name)
	if err != nil {
		return err
	}
	if err := s.takeLocks(id, statedir.CommandResume); err != nil {
		return err
	}
	a.id = id
	// Of a damaged journal, what can be read counts: this is how such a run is ended.
	records, damage := journal.Read(s.state.Run(id))
	status, err := journal.StatusOf(id, records)
	damage = errors.Join(damage, err)
	a.status = status
	a.list = recover.Abandonment{Run: id, Command: status.Command, Host: status.Host,
		Finished: status.State == recover.RunFinished, Instances: []recover.AbandonedInstance{}}
	if err := s.open(recover.CommandReboot); err != nil { // the owners are looked up where they are needed
		return err
	}
	s.resuming = true
	s.takeCustody(id, true)
	if err := s.pins.Connect(ctx); err != nil {
		return err
	}
	s.plan, _, err = journal.PlanOf(records)
	damage = errors.Join(damage, err)
	s.plan.Run, s.plan.Command = id, status.Command
	s.history, err = journal.HistoriesOf(records)
	damage = errors.Join(damage, err)
	s.locks, err = journal.LocksOf(records)
	if damage = errors.Join(damage, err); damage != nil {
		a.list.Damage = damage.Error()
	}
	for _, h := range s.history {
		if h.Unsettled() && len(h.Sealed)+len(h.Mirrors) > 0 && s.owners == nil {
			if s.owners, err = owners.Resolve(s.e.Settings, s.root); err != nil {
				return err
			}
		}
	}
	if err := s.reopenStaging(records); err != nil {
		return err
	}
	if err := a.addPinned(ctx); err != nil {
		return err
	}
	a.connect(ctx, offline)
	return a.look(ctx)
}

// addPinned adds the instances that the keeper still holds files of for the run, though
// they are none of its plan.
func (a *Abandonment) addPinned(ctx context.Context) error {
	holds, err := a.s.pins.Earlier(ctx)
	if err != nil {
		return err
	}
	for _, h := range holds {
		if meta, err := pin.MetaOf(h); err != nil || meta.Run != a.id {
			continue
		}
		for _, uuid := range h.Owners {
			if !slices.ContainsFunc(a.status.Instances, func(i recover.InstanceStatus) bool { return i.UUID == uuid }) {
				a.status.Instances = append(a.status.Instances, recover.InstanceStatus{UUID: uuid, Outcome: recover.OutcomeSkipped})
			}
		}
	}
	return nil
}

// connect signs in to Nova, if the run has locks there. That it can't be asked keeps
// nobody from ending a run.
func (a *Abandonment) connect(ctx context.Context, offline bool) {
	s := a.s
	own := slices.ContainsFunc(a.status.Instances, func(i recover.InstanceStatus) bool {
		lock, ok := s.locks[i.UUID]
		return ok && !lock.Found
	})
	if !own {
		return
	}
	a.signIn = errors.New("os-rescue works offline")
	if offline || s.e.SignIn == nil {
		return
	}
	if s.cloud, a.signIn = s.e.SignIn(ctx); a.signIn != nil {
		s.cloud = nil
		zerolog.Ctx(ctx).Warn().Err(a.signIn).Msg("Nova can't be asked to undo the run's locks")
	}
}

// planOf returns what the run was going to do with an instance; of a run that was killed
// before its plan, no more than its name.
func (a *Abandonment) planOf(i recover.InstanceStatus) recover.InstancePlan {
	if h := a.s.history[i.UUID]; h != nil && h.Replanned != nil {
		return *h.Replanned
	}
	n := slices.IndexFunc(a.s.plan.Instances, func(todo recover.InstancePlan) bool { return todo.UUID == i.UUID })
	if n < 0 {
		return recover.InstancePlan{UUID: i.UUID, Domain: i.Domain, Name: i.Name}
	}
	return a.s.plan.Instances[n]
}

// look fills in the list of instances, and what is held of each.
func (a *Abandonment) look(ctx context.Context) error {
	r := a.s.run()
	for _, status := range a.status.Instances {
		one := newAbandoned(a, newInstance(r, a.s.workshop(), a.planOf(status)), status)
		err := one.list(ctx)
		one.i.close()
		if err != nil {
			return err
		}
		if !a.list.Finished || len(one.said.Holdings) > 0 {
			a.list.Instances = append(a.list.Instances, one.said)
		}
	}
	return nil
}

// Plan returns what is held, and what Execute will do to the guests, with no choice made.
func (a *Abandonment) Plan() recover.Abandonment { return a.list }

// Execute ends the run: what it can still undo of its work on a guest is undone, its locks
// in Nova are undone, what it holds is kept or let go by choice, and the journal says so. A
// kill in the middle leaves the run as unfinished as it was, for a resume or another try.
//
// The result says what became of everything. An instance whose guest could not be put back
// as it was found has an Error there, and the run is not ended: recover.ErrRefused. Other
// errors are those of the journal and the keeper.
func (a *Abandonment) Execute(ctx context.Context, choice recover.AbandonChoice) (recover.Abandonment, error) {
	s := a.s
	list := a.list
	list.Choice, list.Instances = choice, []recover.AbandonedInstance{}
	if a.list.Finished && !choice.Release {
		return a.list, nil
	}
	if err := journal.Salvage(s.state.Run(a.id)); err != nil {
		return list, err
	}
	if _, err := s.openJournal(a.id, s.e.Failpoint); err != nil {
		return list, err
	}
	if err := s.log.Write(journal.Record{Step: journal.StepAbandon, Phase: recover.PhaseBegin}, choice); err != nil {
		return list, err
	}
	r := s.run()
	var stuck []string
	for _, status := range a.status.Instances {
		one := newAbandoned(a, newInstance(r, s.workshop(), a.planOf(status)), status)
		err := one.end(ctx, choice)
		one.i.close()
		list.Instances = append(list.Instances, one.said)
		if err != nil {
			return list, err
		}
		if one.said.Error != "" {
			stuck = append(stuck, one.said.Domain)
		}
	}
	if err := s.dirs.Clean(); err != nil {
		return list, err
	}
	if len(stuck) > 0 {
		return list, fmt.Errorf("%w: the run is not ended, because not all could be undone of %s", recover.ErrRefused, strings.Join(stuck, ", "))
	}
	abandoned := !a.list.Finished || a.status.Abandoned
	list.Finished = true
	return list, s.log.Write(journal.Record{Step: journal.StepRun, Phase: recover.PhaseDone}, journal.End{Abandoned: abandoned})
}

// Close lets go of the host's lock and of everything that is open.
func (a *Abandonment) Close() { a.s.Close() }
