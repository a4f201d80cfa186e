package guard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/novalock"
)

// guardLockReason begins the reason of a guard's lock, by which it is known again.
const guardLockReason = "os-rescue guard"

// locker locks instances in Nova when their files are deleted: their owner's reboot
// would end their QEMU. It undoes its own locks, and nobody else's.
type locker struct {
	nova      *novaSide
	incidents *incidents
	records   *records
	problems  *problems
	isWanted  func() bool
	due       trigger // instances are to be locked
}

// run locks until the context ends. An instance that could not be locked is tried
// again.
func (l *locker) run(ctx context.Context) {
	retry := time.NewTicker(DefaultInterval)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.due:
		case <-retry.C:
		}
		l.lockAll(ctx)
	}
}

func (l *locker) lockAll(ctx context.Context) {
	if !l.isWanted() {
		return
	}
	var todo []string
	list, _ := l.incidents.list()
	for _, i := range list {
		if !i.Locked && !i.Replaced {
			todo = append(todo, i.UUID)
		}
	}
	if len(todo) == 0 {
		return
	}
	cloud, err := l.nova.connect(ctx)
	if cloud == nil {
		if err == nil {
			err = errors.New("guard.lock is set, and guard.os_cloud names no credentials")
		}
		l.problems.set("lock", fmt.Errorf("%d instances whose files are deleted are not locked in Nova: %w", len(todo), err))
		return
	}
	var group errgroup.Group
	group.SetLimit(recover.NovaParallel)
	for _, uuid := range todo {
		group.Go(func() error { return l.lock(ctx, cloud, uuid) })
	}
	err = group.Wait()
	if err != nil {
		err = fmt.Errorf("not every instance whose files are deleted could be locked in Nova: %w", err)
	}
	l.problems.set("lock", err)
}

// lock locks one instance, unless somebody has.
func (l *locker) lock(ctx context.Context, cloud recover.Cloud, uuid string) error {
	ctx, cancel := context.WithTimeout(ctx, novaTime)
	defer cancel()
	server, err := novalock.Read(ctx, cloud, uuid)
	if err != nil {
		return err
	}
	if novalock.IsOwnProject(cloud, server) {
		return fmt.Errorf("%w: the credentials are of the instance's own project, and their lock would be an owner's", recover.ErrRefused)
	}
	reason := guardLockReason + ": its files were deleted; a reboot or stop now would lose them"
	found, err := novalock.Lock(ctx, cloud, server, reason, func(found bool) error {
		if found {
			return nil
		}
		return l.note(uuid, reason)
	})
	if err != nil {
		if !novalock.MayBeLocked(err) {
			err = errors.Join(err, l.note(uuid, ""))
		}
		return err
	}
	if !found {
		zerolog.Ctx(ctx).Warn().Str("instance", uuid).Str("name", server.Name).Msg("locked in Nova, so that its owner can't reboot or stop it")
	}
	l.incidents.update(uuid, func(i *Incident) { i.Locked = true })
	return nil
}

// note notes the reason of the guard's own lock on an instance; empty without one.
func (l *locker) note(uuid, reason string) error {
	note := l.records.update
	if reason != "" { // an incident that has just begun may have no record yet
		note = l.records.note
	}
	return note(uuid, func(r *inventory.Record) { r.Lock = reason })
}

// unlock undoes the guard's own lock of an instance that is back.
func (l *locker) unlock(ctx context.Context, uuid string) {
	record, _ := l.records.get(uuid)
	if record.Lock == "" {
		return
	}
	cloud, _ := l.nova.connect(ctx) // why not is a problem of its own
	if cloud == nil {
		l.problems.set("unlock "+uuid, fmt.Errorf("%s is back and still locked by the guard: openstack server unlock %s", uuid, uuid))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, novaTime)
	defer cancel()
	if _, err := novalock.Unlock(ctx, cloud, uuid, record.Lock); err != nil {
		l.problems.set("unlock "+uuid, fmt.Errorf("%s is back and still locked by the guard: %w", uuid, err))
		return
	}
	l.problems.set("unlock "+uuid, nil)
	l.problems.unsaved(uuid, l.note(uuid, ""))
	l.incidents.update(uuid, func(i *Incident) { i.Locked = false })
}
