package staging

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/run/task"
	"github.com/os-rescue/os-rescue/recover/space"
)

// RoomForAll looks once more, before an instance is touched, whether its copies fit:
// others may have filled the file system since the plan, and an instance that failed has
// not let its old inodes go. recover.ErrRefused says why they do not fit.
func RoomForAll(t *task.Task) error {
	if t.History != nil {
		return nil // what is staged already needs no room again
	}
	one := recover.Plan{Command: t.Run.Plan.Command, Options: t.Run.Plan.Options, Instances: []recover.InstancePlan{t.Plan}}
	if err := space.Fit(&one, t.Run.Root, t.Run.Settings); err != nil {
		return err
	}
	if refused := one.Instances[0]; refused.Action == recover.ActionRefuse {
		return recover.Refusal(refused.Refusal)
	}
	return nil
}

// RoomFor looks whether one more copy fits. recover.ErrRefused says why it does not.
func RoomFor(t *task.Task, f recover.FilePlan) error {
	alone := recover.InstancePlan{UUID: t.Plan.UUID, Action: recover.ActionReboot, Files: []recover.FilePlan{f}}
	one := recover.Plan{Command: recover.CommandRescue, Instances: []recover.InstancePlan{alone}}
	if err := space.Fit(&one, t.Run.Root, t.Run.Settings); err != nil {
		return err
	}
	if refused := one.Instances[0]; refused.Action == recover.ActionRefuse {
		return recover.Refusal(refused.Refusal)
	}
	return nil
}

// roomFor returns ErrNoSpace unless that many bytes more fit and the headroom, a
// share of the file system, stays free.
func (d *Directory) roomFor(need int64, headroom float64) error {
	room, err := d.Statfs()
	if err != nil {
		return err
	}
	if floor := headroom * float64(room.Total); need > 0 && float64(int64(room.Free)-need) < floor {
		return fmt.Errorf("%w: the guest's disks have grown by %s while they were copied, and %s are free on the file system of %s, "+
			"of which %s must stay free", recover.ErrNoSpace,
			humanize.IBytes(uint64(need)), humanize.IBytes(room.Free), d.Path(), humanize.IBytes(uint64(floor)))
	}
	return nil
}

// RoomLeft returns recover.ErrNoSpace when less than half the headroom is left on the
// directory's file system: healthy guests live there too. headroom is a share of the file
// system, 0 to 1; path is the file that the error names.
func (d *Directory) RoomLeft(headroom float64, path string) error {
	room, err := d.Statfs()
	if err != nil {
		return err
	}
	if floor := headroom / 2 * float64(room.Total); float64(room.Free) < floor {
		return fmt.Errorf("%w: only %s are left on the file system of %s, and a full one pauses its healthy guests",
			recover.ErrNoSpace, humanize.IBytes(room.Free), path)
	}
	return nil
}

// Watch asks left once a second, and cancels the context that it returns at left's first
// error, which is the cause then (context.Cause). Work that makes files grow while guests
// write must end before it fills a file system up, or their writes fail. stop ends the watching;
// call it once.
func Watch(ctx context.Context, left func() error) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for watched.Err() == nil {
			if err := left(); err != nil {
				cancel(err)
			}
			recover.Pause(watched, time.Second)
		}
	}()
	return watched, func() {
		cancel(nil)
		<-ended
	}
}
